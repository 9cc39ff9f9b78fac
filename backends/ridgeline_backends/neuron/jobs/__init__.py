"""Commands that jobs of the service run: one order in, lines of JSON out."""
