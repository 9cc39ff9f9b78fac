"""The command line: ``ridgeline``. One file per noun; ``app`` puts them together.

Results go to standard output, everything else to standard error. Commands hold no logic of their
own beyond reading arguments and printing: what they do is the client's, and open to any script.
"""
