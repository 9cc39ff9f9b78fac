"""Attention over fresh keys and over the cache, rotary positions, writes to the cache."""

from __future__ import annotations

from ridgeline_backends.neuron.instructions import (
    Engine,
    Instruction,
    Lowered,
    Stream,
    Transfer,
)
from ridgeline_backends.neuron.lowering.rules import (
    Rule,
    Task,
    elementwise,
    evacuation,
    product,
    resident_bytes,
    tiles,
)
from ridgeline_backends.neuron.operations import Attention, CachedAttention, KVWrite, Rope
from ridgeline_backends.neuron.program import ElementType, OperationKind

_SPILL_PASSES = 4
"""Scores that have no room: written in fp32, read for the softmax, written and read as shares."""


def _attention(task: Task) -> Lowered:
    kind, (q, k, v) = task.attributes, task.inputs[:3]
    assert isinstance(kind, Attention)
    batch, queries, heads, dim = q.shape
    pairs = kind.pairs(queries, k.shape[1])
    # Tiles that are hidden as a whole are left out by the flash kernel alone.
    seen = max(1, round(pairs / queries))
    times = batch * heads
    scores = times * queries * seen
    per_head = queries * k.shape[1] * ElementType.FP32.bytes
    spilled = kind.kernel == "plain" and per_head > task.chip.sbuf_mib_per_core * 2**20
    moved = times * queries * k.shape[1] * ElementType.FP32.bytes * _SPILL_PASSES
    return Lowered(
        instructions=(
            *product(task, queries, dim, seen, q.dtype, times=times),
            *_softmax(task, scores, 5 * times * pairs),
            *_transposes(task, scores),
            *product(task, queries, seen, v.shape[3], q.dtype, times=times),
        ),
        transfers=(*task.transfers(), *((Transfer(Stream.SPILL, moved),) if spilled else ())),
        depth=5,
        joins=1,
    )


def _cached_attention(task: Task) -> Lowered:
    kind, (q, k, v) = task.attributes, task.inputs[:3]
    assert isinstance(kind, CachedAttention)
    batch, queries, heads, dim = q.shape
    kv_heads = k.shape[1]
    grouped = queries * heads // kv_heads
    scores = batch * heads * queries * kind.length
    # Softmax over old and new keys goes by several operations; between them scores pass by memory.
    spilled = queries * kind.length * ElementType.FP32.bytes > resident_bytes(task.chip)
    moved = scores * ElementType.FP32.bytes * _SPILL_PASSES
    return Lowered(
        instructions=(
            *product(task, grouped, dim, kind.length, q.dtype, times=batch * kv_heads),
            *_softmax(task, scores, 5 * scores),
            *_transposes(task, scores),
            *product(task, grouped, kind.length, v.shape[3], q.dtype, times=batch * kv_heads),
        ),
        transfers=(*task.transfers(), *((Transfer(Stream.SPILL, moved),) if spilled else ())),
        depth=5,
        joins=1,
    )


def _rope(task: Task) -> Lowered:
    x, _, cos, _ = task.inputs
    turned = x.elements // x.shape[-1] * cos.shape[-1]
    return Lowered(
        instructions=elementwise(task, "rotate", turned, passes=3, dtype=x.dtype, flops=3 * turned),
        transfers=task.transfers(),
        depth=1,
    )


def _kv_write(task: Task) -> Lowered:
    _, new, *_ = task.inputs
    return Lowered(
        instructions=elementwise(task, "lay out", new.elements, dtype=new.dtype),
        transfers=task.transfers(),
        depth=1,
    )


def _softmax(task: Task, scores: int, flops: int) -> tuple[Instruction, ...]:
    """The largest by Vector, the exponential with its sum by Scalar, the share by Vector."""
    return (
        *elementwise(task, "largest", scores),
        *elementwise(task, "exponential", scores, engine=Engine.SCALAR, flops=flops),
        *elementwise(task, "share", scores, dtype=ElementType.BF16),
    )


def _transposes(task: Task, elements: int) -> tuple[Instruction, ...]:
    """Shares turned by the tensor engine, 128 x 128 at a time, so that keys lie on partitions."""
    side = task.chip.partitions
    count = tiles(elements, side * side)
    return (Instruction(Engine.TENSOR, "transpose", side, count), *evacuation(task, elements))


RULES: dict[type[OperationKind], Rule] = {
    Attention: _attention,
    CachedAttention: _cached_attention,
    Rope: _rope,
    KVWrite: _kv_write,
}
