"""The order of a program's operations on a core, and what passes between them.

Operations follow one another as they are listed; within one, engines and DMA queues work at once
(`timing.seconds`), and weights come in ahead (`timing.ahead`). What an operation takes row by row
and reads right behind its writer passes tile by tile and never goes to memory: compilers fuse the
two. Those of the Vector and Scalar engines do, and products whose weights stay in SBUF meanwhile.
"""

from __future__ import annotations

from functools import lru_cache

from ridgeline_backends.neuron.devices.model import Chip
from ridgeline_backends.neuron.instructions import Lowered
from ridgeline_backends.neuron.lowering import lower, resident_bytes
from ridgeline_backends.neuron.operations import (
    Binary,
    Cast,
    Gated,
    LayerNorm,
    Matmul,
    RMSNorm,
    Unary,
)
from ridgeline_backends.neuron.program import BufferKind, Operation, Section

_BY_ROW = (Binary, Cast, Gated, LayerNorm, RMSNorm, Unary)
_AHEAD = 2
"""So many operations later a tile is still at hand."""


@lru_cache(maxsize=4096)
def streamed_buffers(section: Section, chip: Chip) -> frozenset[str]:
    """Names of the scratch buffers that only such operations read, right behind their writer."""
    last: dict[str, int] = {}
    found: dict[str, bool] = {}
    for place, operation in enumerate(section.operations):
        for buffer in operation.inputs:
            if buffer.kind is BufferKind.SCRATCH:
                near = place - last.get(buffer.name, -_AHEAD - 1) <= _AHEAD
                fused = near and _goes_by_row(operation, chip)
                found[buffer.name] = found.get(buffer.name, True) and fused
        last.update((buffer.name, place) for buffer in operation.outputs)
    return frozenset(name for name, fused in found.items() if fused)


def _goes_by_row(operation: Operation, chip: Chip) -> bool:
    if not isinstance(operation.attributes, Matmul):
        return isinstance(operation.attributes, _BY_ROW)
    second = operation.inputs[1]
    return second.kind is BufferKind.WEIGHT and second.form.bytes <= resident_bytes(chip)


@lru_cache(maxsize=4096)
def lowered(section: Section, chip: Chip) -> tuple[Lowered, ...]:
    """A section's operations as instructions. Raises `UnsupportedModel`."""
    streamed = streamed_buffers(section, chip)
    return tuple(lower(operation, chip, streamed) for operation in section.operations)
