"""Serving under load on a virtual clock: our own scheduler, driven with predicted times."""
