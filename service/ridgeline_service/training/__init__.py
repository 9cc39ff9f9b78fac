"""Jobs: the runner, a process of its own that takes one instance of a job from its data to its
artifacts, and what the control plane and it tell each other through files in the job's folder.

Imports neither store, control, api nor gateway.
"""
