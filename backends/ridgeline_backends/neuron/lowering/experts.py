"""Mixture of experts: the chosen experts' matrices, one after the other."""

from __future__ import annotations

from ridgeline_backends.neuron.instructions import Lowered
from ridgeline_backends.neuron.lowering.rules import Rule, Task, elementwise, product, tiles
from ridgeline_backends.neuron.operations import Combine, ExpertMatmul
from ridgeline_backends.neuron.program import OperationKind


def _expert_matmul(task: Task) -> Lowered:
    kind, (x, weights, ids) = task.attributes, task.inputs[:3]
    assert isinstance(kind, ExpertMatmul)
    rows = ids.elements if kind.rows is None else kind.rows
    each = max(1, tiles(rows, kind.experts_read))
    _, columns, inner = weights.shape
    return Lowered(
        instructions=product(task, each, inner, columns, x.dtype, times=kind.experts_read),
        transfers=task.transfers(),
        depth=2,
    )


def _combine(task: Task) -> Lowered:
    x = task.inputs[0]
    work = elementwise(task, "weigh and add", x.elements, passes=2, flops=2 * x.elements)
    return Lowered(work, task.transfers(), depth=1)


RULES: dict[type[OperationKind], Rule] = {ExpertMatmul: _expert_matmul, Combine: _combine}
