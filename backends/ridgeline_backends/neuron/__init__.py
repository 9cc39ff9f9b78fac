"""Simulated AWS Neuron: compile, shard, run and time a model on devices that are not here."""
