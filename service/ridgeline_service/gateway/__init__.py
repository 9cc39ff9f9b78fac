"""The gateway: the one public port. It authenticates, routes inference, and passes the rest on.

It knows the control plane only as a URL and by the snapshot file, and never imports it.
"""
