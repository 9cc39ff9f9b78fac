"""Rows by number and choosing the largest."""

from __future__ import annotations

from ridgeline_backends.neuron.instructions import Engine, Lowered
from ridgeline_backends.neuron.lowering.rules import Rule, Task, elementwise, tiles
from ridgeline_backends.neuron.operations import ArgMax, Embedding, Take, TopK
from ridgeline_backends.neuron.program import OperationKind

_AT_ONCE = 8
"""max8 finds so many of a row's largest in one pass (source IS)."""


def _embedding(task: Task) -> Lowered:
    ids = task.inputs[1]
    work = elementwise(task, "addresses", ids.elements, engine=Engine.GPSIMD)
    return Lowered(work, task.transfers(), depth=2)


def _take(task: Task) -> Lowered:
    work = elementwise(task, "addresses", task.inputs[1].elements, engine=Engine.GPSIMD)
    return Lowered(work, task.transfers(), depth=1)


def _argmax(task: Task) -> Lowered:
    return largest(task, 1)


def _top_k(task: Task) -> Lowered:
    kind = task.attributes
    assert isinstance(kind, TopK)
    return largest(task, kind.k)


def largest(task: Task, k: int) -> Lowered:
    """For each 8: find them, find their places, take them out. A row's parts lie on partitions, so
    that one more round over the partitions' finds ends it."""
    x = task.inputs[0]
    rounds = tiles(k, _AT_ONCE)
    work = elementwise(task, "max8", x.elements, passes=3 * rounds, flops=x.elements)
    return Lowered(work, task.transfers(), depth=2 + min(3 * rounds, 12))


RULES: dict[type[OperationKind], Rule] = {
    Embedding: _embedding,
    Take: _take,
    ArgMax: _argmax,
    TopK: _top_k,
}
