"""Matrix products on the tensor engine."""

from __future__ import annotations

from math import prod

from ridgeline_backends.neuron.instructions import Engine, Lowered
from ridgeline_backends.neuron.lowering.rules import (
    Rule,
    Task,
    elementwise,
    product,
    row_bytes,
)
from ridgeline_backends.neuron.operations import BatchMatmul, Matmul
from ridgeline_backends.neuron.program import OperationKind


def _matmul(task: Task) -> Lowered:
    kind, (x, weight) = task.attributes, task.inputs[:2]
    assert isinstance(kind, Matmul)
    rows, columns = prod(x.shape[:-1]), weight.shape[0]
    extra = kind.biased + kind.scaled
    return Lowered(
        instructions=(
            *product(task, rows, x.shape[-1], columns, x.dtype),
            *elementwise(
                task, "bias", rows * columns * extra, engine=Engine.SCALAR,
                flops=rows * columns * extra,
            ),
        ),
        transfers=task.transfers(
            row_bytes(columns // kind.joined, weight.shape[1], weight.dtype)
        ),
        depth=1,
        joins=1,
    )  # fmt: skip


def _batch_matmul(task: Task) -> Lowered:
    left, right = task.inputs
    times = prod(task.outputs[0].shape[:-2])
    rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
    return Lowered(
        instructions=product(task, rows, inner, columns, left.dtype, times=times),
        transfers=task.transfers(),
        depth=1,
        joins=1,
    )


RULES: dict[type[OperationKind], Rule] = {Matmul: _matmul, BatchMatmul: _batch_matmul}
