"""How cores exchange data: the algorithm by size, its steps and the bytes over the slowest link.

Inside an instance (source CC): mesh below 1 MB, every core writes to every other at once; recursive
doubling and halving up to 56 MB; a ring above. Between instances: a ring over EFA of what the cores
of an instance have first reduced among themselves. Knows no seconds: a coefficient turns steps into
latency, another derates the links.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, log2

from ridgeline_backends.neuron.instructions import Exchange
from ridgeline_backends.neuron.timing.machine import Machine

MESH_BELOW = 1 << 20
RING_ABOVE = 56 << 20
EFA_HOP_US = 15.0
"""One hop between instances (source CC)."""

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
    """`steps` that wait for each other inside an instance; seconds of data at nominal speed;
    seconds that EFA adds, latency included."""

    steps: float
    link_s: float
    network_s: float


def algorithm(exchange: Exchange) -> str:
    """`mesh`, `rdh` or `ring`, by the size of the whole tensor."""
    whole = exchange.bytes * (exchange.members if exchange.name == "all_gather" else 1)
    if whole < MESH_BELOW:
        return "mesh"
    return "rdh" if whole <= RING_ABOVE else "ring"


def cost(exchange: Exchange, machine: Machine) -> Cost:
    """What an exchange takes of a machine."""
    nodes = machine.spans(exchange.members, exchange.stride)
    local = max(1, exchange.members // nodes)
    sent = _SENT[exchange.name](local) * exchange.bytes
    link_s = sent / (_core_gb_s(machine, local, exchange.stride) * 1e9)
    return Cost(
        steps=_steps(algorithm(exchange), local, machine.hops(local, exchange.stride)),
        link_s=link_s if local > 1 else 0.0,
        network_s=_network_s(exchange, machine, nodes, local),
    )


def _core_gb_s(machine: Machine, members: int, stride: int) -> float:
    """What one core can send: its share of the device's links, or of its memory within one."""
    devices = machine.devices(members, stride)
    inside = machine.memory_gb_s / 2
    if devices == 1:
        return inside
    sharing = machine.chip.logical_cores(machine.lnc) / min(
        stride, machine.chip.logical_cores(machine.lnc)
    )
    return min(inside, machine.instance.link_gb_s / 2 / sharing)


def _steps(name: str, members: int, hops: int) -> float:
    if members == 1:
        return 0.0
    if name == "mesh":
        return max(1.0, hops)
    if name == "rdh":
        return 2 * ceil(log2(members)) + hops
    return 2.0 * (members - 1)


def _network_s(exchange: Exchange, machine: Machine, nodes: int, local: int) -> float:
    if nodes == 1:
        return 0.0
    # Every core of a node sends its part over the node's network, all of them at once.
    share = exchange.bytes / (local if exchange.name == "all_reduce" else 1)
    sent = _SENT[exchange.name](nodes) * share
    sharing = machine.instance.cores(machine.lnc)
    hops = 2 * ceil(log2(nodes))
    return sent * sharing / (machine.network_gb_s * 1e9) + hops * EFA_HOP_US * 1e-6
