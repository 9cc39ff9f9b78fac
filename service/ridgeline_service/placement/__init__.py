"""Where replicas may run: instance types as profiles, this machine's room, admission.

Knows no row and no process; ``control`` asks before it deploys and before it starts.
"""
