"""Convolutions, pooling and resizing."""

from __future__ import annotations

from math import prod

from ridgeline_backends.neuron.instructions import Engine, Instruction, Lowered
from ridgeline_backends.neuron.lowering.rules import (
    LEAST_CYCLES,
    Rule,
    Task,
    elementwise,
    evacuation,
    fp8_share,
    tiles,
)
from ridgeline_backends.neuron.operations import Convolution, Pool, Upsample
from ridgeline_backends.neuron.program import ElementType, OperationKind


def _convolution(task: Task) -> Lowered:
    """A product for each place of the window, summed in PSUM: channels lie on the partitions, the
    places of the image move through. Few channels leave most of the array idle, unless places of
    the window are stacked on the partitions, as is done for the first layer of a network."""
    kind, (x, weight) = task.attributes, task.inputs[:2]
    assert isinstance(kind, Convolution)
    chip, out = task.chip, task.outputs[0]
    window = prod(weight.shape[2:])
    # A transposed one sums over the channels that its weight has first, for each place of x.
    channels = weight.shape[0] // kind.groups if kind.transposed else weight.shape[1]
    columns = weight.shape[1] if kind.transposed else weight.shape[0] // kind.groups
    seen = x if kind.transposed else out
    places = seen.shape[0] * prod(seen.shape[2:])
    if kind.groups > 1 and channels == 1:
        return _depthwise(task, window)
    deep = (
        tiles(channels * window, chip.tensor_rows)
        if channels * 2 <= chip.tensor_rows
        else tiles(channels, chip.tensor_rows) * window
    )
    blocks = tiles(columns, chip.tensor_columns) * kind.groups
    bank = chip.psum_bank_bytes // ElementType.FP32.bytes
    count = deep * blocks * tiles(places, bank)
    passes = chip.fp32_passes if x.dtype is ElementType.FP32 else fp8_share(chip, x.dtype)
    cycles = max(LEAST_CYCLES, places / tiles(places, bank)) * passes
    flops = kind.flops(task.inputs[:2])
    bias = out.elements if len(task.inputs) > 2 else 0
    return Lowered(
        instructions=(
            Instruction(Engine.TENSOR, "matmul", cycles, count, flops),
            *evacuation(task, out.elements),
            *elementwise(task, "bias", bias, engine=Engine.SCALAR, flops=bias),
        ),
        transfers=task.transfers(),
        depth=1,
    )


def _depthwise(task: Task, window: int) -> Lowered:
    """A channel of its own each: a multiply-add of the Vector engine per place of the window."""
    out = task.outputs[0]
    flops = task.attributes.flops(task.inputs)
    work = elementwise(task, "multiply_add", out.elements, passes=2 * window, flops=flops)
    return Lowered(work, task.transfers(), depth=1)


def _pool(task: Task) -> Lowered:
    kind, out = task.attributes, task.outputs[0]
    assert isinstance(kind, Pool)
    window = prod(kind.window)
    work = elementwise(task, kind.function, out.elements * window, flops=out.elements * window)
    return Lowered(work, task.transfers(), depth=1)


def _upsample(task: Task) -> Lowered:
    out = task.outputs[0]
    work = elementwise(task, "copy", out.elements, dtype=out.dtype)
    return Lowered(work, task.transfers(), depth=1)


RULES: dict[type[OperationKind], Rule] = {
    Convolution: _convolution,
    Pool: _pool,
    Upsample: _upsample,
}
