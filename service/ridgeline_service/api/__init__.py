"""AWS protocols and the REST API over the verbs of the control plane.

Knows no database and no process: ``assemble`` joins it to what does.
"""
