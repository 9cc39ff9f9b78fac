"""Where a program runs: an instance type, an LNC, and how a group of cores lies on its devices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ridgeline_backends.neuron.devices import Chip, Instance
from ridgeline_backends.neuron.topology import device_graph

_KEPT_UP = 0.9
"""Of its nominal bandwidth, what memory gives at most."""


@dataclass(frozen=True)
class Machine:
    """`lnc` physical cores make one logical core. `nodes` instances, joined by EFA. `active`: how
    many cores of a device work at once, all if not said: they share its one bank of memory, where
    it has no more."""

    instance: Instance
    lnc: int
    nodes: int = 1
    active: int | None = None

    @property
    def chip(self) -> Chip:
        return self.instance.chip

    @cached_property
    def cores(self) -> int:
        """Logical cores of all nodes."""
        return self.instance.cores(self.lnc) * self.nodes

    @cached_property
    def memory_gb_s(self) -> float:
        """Bandwidth of device memory of one logical core."""
        share = self.chip.memory_gb_s_per_core(self.lnc)
        if self.active is None or self.chip.memory_banks > 1:
            return share
        return share * self.chip.logical_cores(self.lnc) / self.active

    @cached_property
    def engines_gb_s(self) -> float:
        """What the DMA engines of one logical core carry in practice, where its memory keeps up."""
        chip = self.chip
        carried = chip.dma_engines_per_core * chip.dma_engine_gb_s * self.lnc
        return min(carried, _KEPT_UP * self.memory_gb_s)

    @cached_property
    def core_memory_bytes(self) -> int:
        return self.instance.core_memory_bytes(self.lnc)

    def devices(self, members: int, stride: int) -> int:
        """How many devices of one node a group of logical cores touches."""
        cores = self.chip.logical_cores(self.lnc)
        within = min(members * stride, self.instance.cores(self.lnc))
        return max(1, -(-within // cores))

    def spans(self, members: int, stride: int) -> int:
        """How many nodes a group of logical cores touches."""
        return max(1, -(-members * stride // self.instance.cores(self.lnc)))

    def hops(self, members: int, stride: int) -> int:
        """Links between the two farthest devices of a group on one node."""
        return device_graph(self.instance).group_diameter(self.devices(members, stride))

    @property
    def network_gb_s(self) -> float:
        """Of one node, one way. A type whose network is not published gets that of 100 Gb/s."""
        return (self.instance.network_gbps or 100.0) / 8
