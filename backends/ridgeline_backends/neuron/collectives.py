"""How cores exchange data: the algorithm by size, what it waits for, the bytes that a core sends.

Inside an instance (source CC): mesh below 1 MB, every core writes to every other at once; recursive
doubling and halving up to 56 MB; a ring above. Between instances: a tree for the smallest, from
64 KiB on a ring through all cores of the group, and in between by degrees from one to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, log2

from ridgeline_backends.neuron.instructions import Exchange
from ridgeline_backends.neuron.timing.machine import Machine

MESH_BELOW = 1 << 20
RING_ABOVE = 56 << 20
TREE_UP_TO, RING_FROM = 128, 64 << 10
"""Between instances. Each doubling from one to the other takes about as much longer as the one
before, with no step where one algorithm would end (64 cores of two instances, nccom-test)."""

STEP_US = 1.5
"""One hop inside an instance: 1 to 2 us (source CC)."""

EFA_HOP_US = 15.0
"""One hop between instances (source CC)."""

RING_STEP_US = 6.7
"""One step of a ring that leaves the instance: 64 cores of two instances take 1.3 ms for whatever
is between 64 KB and 4 MB (nccom-test, source CC), of which 0.46 ms are the host's start."""

_DMA_SHARE = 4
"""The DMA engines of a core are shared: this fraction of them moves what is exchanged. 2 cores of a
chip and 64 of two instances come to the same 52 to 57 GB/s each (nccom-test, busbw)."""

_SENT: Mapping[str, Callable[[int], float]] = {
    # Bytes a core sends, as multiples of what it brings, of a group of n.
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_gather": lambda n: n - 1.0,
    "all_to_all": lambda n: (n - 1) / n,
    "permute": lambda _: 1.0,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """`waits_s`: steps that wait for each other; seconds of data at nominal speed between cores,
    and what EFA adds to that. `ring_steps`: how many steps it would be as a ring in an instance;
    `peers`: to how many others of an instance a core writes at once."""

    waits_s: float
    link_s: float
    network_s: float
    ring_steps: float
    peers: int


def algorithm(exchange: Exchange) -> str:
    """`mesh`, `rdh` or `ring`, by the size of the whole tensor."""
    whole = _whole(exchange)
    if whole < MESH_BELOW:
        return "mesh"
    return "rdh" if whole <= RING_ABOVE else "ring"


def cost(exchange: Exchange, machine: Machine) -> Cost:
    """What an exchange takes of a machine."""
    nodes = machine.spans(exchange.members, exchange.stride)
    local = max(1, exchange.members // nodes)
    sent = _SENT[exchange.name](local) * exchange.bytes
    link_s = sent / (_core_gb_s(machine, local, exchange.stride) * 1e9)
    chosen = algorithm(exchange)
    inside = _steps(chosen, local, machine.hops(local, exchange.stride))
    return Cost(
        waits_s=(inside * STEP_US if nodes == 1 else _across_us(exchange, nodes)) * 1e-6,
        link_s=link_s if local > 1 else 0.0,
        network_s=_network_s(exchange, machine, nodes, local),
        ring_steps=_ring_steps(exchange, local) if nodes == 1 else 0.0,
        peers=local - 1 if chosen == "mesh" and nodes == 1 else 0,
    )


def _whole(exchange: Exchange) -> int:
    return exchange.bytes * (exchange.members if exchange.name == "all_gather" else 1)


def _core_gb_s(machine: Machine, members: int, stride: int) -> float:
    """What one core can send: what its DMA engines carry, at most its share of the links. A ring
    through neighbours leaves a device once; groups that lie `stride` apart do so side by side."""
    chip = machine.chip
    inside = chip.dma_engines_per_core * chip.dma_engine_gb_s * machine.lnc / _DMA_SHARE
    if machine.devices(members, stride) == 1:
        return inside
    sharing = min(stride, chip.logical_cores(machine.lnc))
    return min(inside, machine.instance.link_gb_s / 2 / sharing)


def _steps(name: str, members: int, hops: int) -> float:
    if members == 1:
        return 0.0
    if name == "mesh":
        return 1.0
    if name == "rdh":
        return 2 * ceil(log2(members)) + hops
    return 2.0 * (members - 1)


def _ring_steps(exchange: Exchange, members: int) -> float:
    if exchange.name == "permute":
        return 1.0
    return (2.0 if exchange.name == "all_reduce" else 1.0) * (members - 1)


def _across_us(exchange: Exchange, nodes: int) -> float:
    """Waiting between instances."""
    if exchange.name == "permute":
        return EFA_HOP_US
    rounds = 2 if exchange.name == "all_reduce" else 1
    ring = (exchange.members - 1) * RING_STEP_US
    tree = min(ring, ceil(log2(nodes)) * EFA_HOP_US)
    return rounds * (tree + (ring - tree) * _ring_share(_whole(exchange)))


def _ring_share(size: int) -> float:
    """How far an exchange of this size is from a tree's time to a ring's: 0 to 1."""
    within = min(max(size, TREE_UP_TO), RING_FROM)
    return log2(within / TREE_UP_TO) / log2(RING_FROM / TREE_UP_TO)


def _network_s(exchange: Exchange, machine: Machine, nodes: int, local: int) -> float:
    if nodes == 1:
        return 0.0
    # Every core of a node sends its part over the node's network, all of them at once.
    share = exchange.bytes / (local if exchange.name == "all_reduce" else 1)
    sent = _SENT[exchange.name](nodes) * share
    sharing = machine.instance.cores(machine.lnc)
    return sent * sharing / (machine.network_gb_s * 1e9)
