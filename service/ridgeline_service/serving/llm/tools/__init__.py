"""Tool calling: what a request declares, how a model is told, and how its calls are read back."""
