"""Devices as a graph: who is wired to whom, how many hops lie between, which rings run through.

Knows shapes alone, nothing of speeds. Devices are numbered row by row, as `neuron-ls` numbers them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate

from ridgeline_backends.neuron.devices.model import Instance, Topology


@dataclass(frozen=True)
class DeviceGraph:
    """The devices of one instance (or UltraServer). `neighbours[d]` in the order of neuron-ls."""

    neighbours: tuple[tuple[int, ...], ...]

    @property
    def devices(self) -> int:
        return len(self.neighbours)

    @cached_property
    def hops(self) -> tuple[tuple[int, ...], ...]:
        """`hops[a][b]`: links on a shortest path from device a to device b."""
        return tuple(self._distances(start) for start in range(self.devices))

    @cached_property
    def diameter(self) -> int:
        """Hops between the two devices farthest apart."""
        return max(max(row) for row in self.hops)

    @cached_property
    def total_hops(self) -> int:
        """Hops summed over all ordered pairs of devices."""
        return sum(sum(row) for row in self.hops)

    @cached_property
    def links(self) -> int:
        """Links, each counted once."""
        return sum(len(row) for row in self.neighbours) // 2

    def group_diameter(self, devices: int) -> int:
        """Hops between the two farthest of the first `devices` devices, through any device."""
        return self._diameters[min(devices, self.devices) - 1]

    @cached_property
    def _diameters(self) -> tuple[int, ...]:
        """Of the first device, of the first two, and so on."""
        farthest = (max(self.hops[last][: last + 1]) for last in range(self.devices))
        return tuple(accumulate(farthest, max))

    def _distances(self, start: int) -> tuple[int, ...]:
        found = {start: 0}
        waiting = deque([start])
        while waiting and len(found) < self.devices:
            here = waiting.popleft()
            for there in self.neighbours[here]:
                if there not in found:
                    found[there] = found[here] + 1
                    waiting.append(there)
        return tuple(found[device] for device in range(self.devices))


@cache
def graph(topology: Topology, shape: tuple[int, ...]) -> DeviceGraph:
    """The graph of a shape: `[12]` a ring of 12, `[4, 4]` a 2D torus, `[4, 4, 4]` one of 3D."""
    size = 1
    for extent in shape:
        size *= extent
    if topology is Topology.FULL:
        return DeviceGraph(tuple(tuple(b for b in range(size) if b != a) for a in range(size)))
    return DeviceGraph(tuple(_wired(device, shape) for device in range(size)))


def device_graph(instance: Instance) -> DeviceGraph:
    """The graph of an instance type's devices."""
    return graph(instance.topology, instance.shape)


def _wired(device: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Neighbours one step down in every dimension, then one step up: neuron-ls's order."""
    position: list[int] = []
    rest = device
    for extent in reversed(shape):
        position.insert(0, rest % extent)
        rest //= extent
    found: list[int] = []
    for step in (-1, 1):
        for axis, extent in enumerate(shape):
            moved = list(position)
            moved[axis] = (moved[axis] + step) % extent
            number = 0
            for place, length in zip(moved, shape, strict=True):
                number = number * length + place
            if number != device and number not in found:
                found.append(number)
    return tuple(found)
