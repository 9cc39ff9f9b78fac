"""Collectives are not the engines' work: they become one exchange, timed on the topology."""

from __future__ import annotations

from ridgeline_backends.neuron.instructions import Exchange, Lowered
from ridgeline_backends.neuron.lowering.rules import Rule, Task
from ridgeline_backends.neuron.operations import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    OwnPart,
    Permute,
    ReduceScatter,
)
from ridgeline_backends.neuron.program import OperationKind

_EXCHANGE_JOINS = 3
"""Before it, between its sums and their return, and behind it."""


def _collective(task: Task) -> Lowered:
    kind, (x,) = task.attributes, task.inputs
    assert isinstance(kind, Collective)
    group = kind.group
    if group.size == 1:
        return Lowered()
    return Lowered(
        exchange=Exchange(kind.name, x.bytes, group.size, group.stride), joins=_EXCHANGE_JOINS
    )


def _own_part(_: Task) -> Lowered:
    return Lowered()


RULES: dict[type[OperationKind], Rule] = dict.fromkeys(
    (AllReduce, AllGather, ReduceScatter, AllToAll, Permute), _collective
)
RULES[OwnPart] = _own_part
