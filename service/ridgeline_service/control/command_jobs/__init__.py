"""Jobs whose work is one command of ours, with the verbs of each kind."""
