"""Operations of the Vector and Scalar engines: number by number, norms, softmax, moves."""

from __future__ import annotations

from ridgeline_backends.neuron.instructions import Engine, Instruction, Lowered
from ridgeline_backends.neuron.lowering.rules import Rule, Task, elementwise, evacuation, tiles
from ridgeline_backends.neuron.operations import (
    Binary,
    Cast,
    Concat,
    Expand,
    Gated,
    GroupNorm,
    LayerNorm,
    Reduce,
    Reshape,
    RMSNorm,
    Slice,
    Softmax,
    Split,
    Transpose,
    Unary,
)
from ridgeline_backends.neuron.program import OperationKind

_PASSES = {
    "log1p": 2, "expm1": 2, "tan": 3, "asin": 4, "acos": 4, "sinh": 3, "cosh": 3,
    "asinh": 4, "acosh": 4, "atanh": 4,
}  # fmt: skip
"""Functions that no table of the Scalar engine has, by those that it has."""

_DIVISIONS = {"floor_divide": 2, "truncate_divide": 2, "remainder": 3, "fmod": 3, "atan2": 4}
"""Functions of two numbers that take several instructions."""


def _unary(task: Task) -> Lowered:
    kind, (x,) = task.attributes, task.inputs
    assert isinstance(kind, Unary)
    steps = _PASSES.get(kind.function, 1)
    work = elementwise(
        task, "activation", x.elements, engine=Engine.SCALAR, passes=steps, flops=x.elements
    )
    return Lowered(work, task.transfers(), depth=steps)


def _binary(task: Task) -> Lowered:
    """Two cycles an element, but one where all are of 16 bits (source IS)."""
    kind, out = task.attributes, task.outputs[0]
    assert isinstance(kind, Binary)
    steps = _DIVISIONS.get(kind.function, 1)
    passes = 1 if all(one.dtype.bytes == 2 for one in (*task.inputs, out)) else 2
    work = elementwise(
        task, "tensor_tensor", out.elements, dtype=out.dtype, passes=steps * passes,
        flops=out.elements,
    )  # fmt: skip
    return Lowered(work, task.transfers(), depth=steps)


def _gated(task: Task) -> Lowered:
    out = task.outputs[0]
    work = (
        *elementwise(task, "activation", out.elements, engine=Engine.SCALAR, flops=out.elements),
        *elementwise(task, "multiply", out.elements, dtype=out.dtype, flops=out.elements),
    )
    return Lowered(work, task.transfers(), depth=2)


def _cast(task: Task) -> Lowered:
    (x,) = task.inputs
    return Lowered(elementwise(task, "copy", x.elements), task.transfers(), depth=1)


def _softmax(task: Task) -> Lowered:
    (x,) = task.inputs
    work = (
        *elementwise(task, "largest", x.elements),
        *elementwise(task, "exponential", x.elements, engine=Engine.SCALAR, flops=5 * x.elements),
        *elementwise(task, "share", x.elements),
    )
    return Lowered(work, task.transfers(), depth=3)


def _norm(task: Task) -> Lowered:
    """Statistics by Vector (bn_stats or a squared sum), scaling by Scalar, weights by Vector."""
    x = task.inputs[0]
    flops = task.attributes.flops(task.inputs)
    work = (
        *elementwise(task, "statistics", x.elements),
        *elementwise(task, "normalise", x.elements, engine=Engine.SCALAR, flops=flops),
        *elementwise(task, "weigh", x.elements, dtype=x.dtype),
    )
    return Lowered(work, task.transfers(), depth=3)


def _reduce(task: Task) -> Lowered:
    (x,) = task.inputs
    work = elementwise(task, "tensor_reduce", x.elements, flops=x.elements)
    return Lowered(work, task.transfers(), depth=1)


def _transpose(task: Task) -> Lowered:
    (x,) = task.inputs
    side = task.chip.partitions
    work = (
        Instruction(Engine.TENSOR, "transpose", side, tiles(x.elements, side * side)),
        *evacuation(task, x.elements),
    )
    return Lowered(work, task.transfers(), depth=1)


def _concat(task: Task) -> Lowered:
    out = task.outputs[0]
    work = elementwise(task, "copy", out.elements, dtype=out.dtype)
    return Lowered(work, task.transfers(), depth=1)


def _view(_: Task) -> Lowered:
    return Lowered()


RULES: dict[type[OperationKind], Rule] = {
    Unary: _unary,
    Binary: _binary,
    Gated: _gated,
    Cast: _cast,
    Softmax: _softmax,
    RMSNorm: _norm,
    LayerNorm: _norm,
    GroupNorm: _norm,
    Reduce: _reduce,
    Transpose: _transpose,
    Concat: _concat,
    Reshape: _view,
    Slice: _view,
    Split: _view,
    Expand: _view,
}
