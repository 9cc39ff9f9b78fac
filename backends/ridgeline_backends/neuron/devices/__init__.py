"""The simulated machines: chips, instance types and how their devices are wired."""

from ridgeline_backends.neuron.devices.loader import chip, chips, instance, instances
from ridgeline_backends.neuron.devices.model import Chip, Instance

__all__ = ["Chip", "Instance", "chip", "chips", "instance", "instances"]
