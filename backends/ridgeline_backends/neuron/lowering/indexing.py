"""Reading and writing by place, scans, order, padding and keeping."""

from __future__ import annotations

from ridgeline_backends.neuron.instructions import Engine, Instruction, Lowered
from ridgeline_backends.neuron.lowering.lookup import largest
from ridgeline_backends.neuron.lowering.rules import (
    LEAST_CYCLES,
    START_CYCLES,
    Rule,
    Task,
    elementwise,
    tiles,
)
from ridgeline_backends.neuron.operations import (
    Gather,
    Index,
    IndexWrite,
    Pad,
    Scan,
    Scatter,
    Sort,
    Store,
)
from ridgeline_backends.neuron.program import OperationKind


def _gather(task: Task) -> Lowered:
    """Each number has a place of its own: GpSimd reads it."""
    work = elementwise(task, "gather", task.outputs[0].elements, engine=Engine.GPSIMD)
    return Lowered(work, task.transfers(), depth=2)


def _index(task: Task) -> Lowered:
    """Rows by descriptors, as an embedding; where the last axis is indexed, number by number."""
    kind, (x, *places) = task.attributes, task.inputs
    assert isinstance(kind, Index)
    last = kind.axes[-1] == len(x.shape) - 1
    asked = task.outputs[0].elements if last else max(one.elements for one in places)
    work = elementwise(task, "addresses", asked, engine=Engine.GPSIMD)
    return Lowered(work, task.transfers(), depth=2)


def _scatter(task: Task) -> Lowered:
    """A copy of what is written into, then GpSimd writes number by number; what it adds to is read
    first."""
    kind, (x, places, _) = task.attributes, task.inputs
    assert isinstance(kind, Scatter)
    passes = 1 if kind.function == "set" else 2
    work = (
        *elementwise(task, "copy", x.elements, dtype=x.dtype),
        *elementwise(
            task, "scatter", places.elements, engine=Engine.GPSIMD, passes=passes,
            flops=kind.flops(task.inputs),
        ),
    )  # fmt: skip
    return Lowered(work, task.transfers(), depth=1 + 2 * passes)


def _index_write(task: Task) -> Lowered:
    kind, (x, values, *_) = task.attributes, task.inputs
    assert isinstance(kind, IndexWrite)
    passes = 2 if kind.add else 1
    work = (
        *elementwise(task, "copy", x.elements, dtype=x.dtype),
        *elementwise(
            task, "scatter", values.elements, engine=Engine.GPSIMD, passes=passes,
            flops=kind.flops(task.inputs),
        ),
    )  # fmt: skip
    return Lowered(work, task.transfers(), depth=1 + 2 * passes)


def _scan(task: Task) -> Lowered:
    """tensor_tensor_scan: a row on each partition, number after number."""
    kind, (x,) = task.attributes, task.inputs
    assert isinstance(kind, Scan)
    if not x.elements:
        return Lowered()
    length = x.shape[kind.axis]
    rows = tiles(x.elements // length, task.chip.partitions)
    cycles = max(LEAST_CYCLES, length) + START_CYCLES
    work = (Instruction(Engine.VECTOR, "tensor_tensor_scan", cycles, rows, x.elements),)
    return Lowered(work, task.transfers(), depth=1)


def _sort(task: Task) -> Lowered:
    """All of a row as its largest, eight at a time: there is no instruction that sorts."""
    return largest(task, task.inputs[0].shape[-1])


def _pad(task: Task) -> Lowered:
    out = task.outputs[0]
    work = elementwise(task, "copy", out.elements, dtype=out.dtype)
    return Lowered(work, task.transfers(), depth=1)


def _store(task: Task) -> Lowered:
    return Lowered((), task.transfers(), depth=1)


RULES: dict[type[OperationKind], Rule] = {
    Gather: _gather,
    Index: _index,
    IndexWrite: _index_write,
    Pad: _pad,
    Scan: _scan,
    Scatter: _scatter,
    Sort: _sort,
    Store: _store,
}
