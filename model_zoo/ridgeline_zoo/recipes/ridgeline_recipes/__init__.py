"""What the recipes share. Scripts of a job import it from the folder beside them; no package of the
service does, because it stands on torch, transformers, peft and trl.

What runs before training starts (``failing``, ``job``, ``options``, ``records``, ``formats``,
``instruction``, ``memory``) is plain Python, so that a wrong setting or a bad line is found within
a second.
"""
