"""Mixture of experts: the chosen experts' matrices, one after the other."""

from __future__ import annotations

from dataclasses import replace

from ridgeline_backends.neuron.instructions import Engine, Instruction, Lowered, Stream, Transfer
from ridgeline_backends.neuron.lowering.rules import (
    Rule,
    Task,
    elementwise,
    product,
    resident_bytes,
    tiles,
)
from ridgeline_backends.neuron.operations import Combine, ExpertMatmul
from ridgeline_backends.neuron.operations.experts import EXPERT_BLOCK_ROWS
from ridgeline_backends.neuron.program import OperationKind

_STEPS_PER_BLOCK = 15
"""Of one product of a block, each waiting for the one before: its expert's number is read, the
matrix's address made, its descriptors, the matrix fetched; the tokens' numbers read, their
descriptors, the rows gathered and turned; the product, its sums out of PSUM, weighed; descriptors
again, the rows of the result fetched, added to, written."""

_DESCRIPTOR_STEPS = 3
"""Of these the descriptors: from NeuronCore-v3 on hardware makes them while it sends (DGE)."""

_CHOSEN_STEPS = 3
"""Of a token's experts: their numbers are read, addresses made of them, and all their matrices
fetched at once. Libraries go through the tokens of a decode step one by one."""

_ADDED_TO = 2 * 4
"""Bytes of a number of the result that is fetched and written in fp32."""


def _expert_matmul(task: Task) -> Lowered:
    """A few tokens: each chosen expert's matrix is fetched by an address that the router made; or
    every expert computes every token. Many: a loop over blocks, each of one expert's tokens,
    filled up."""
    kind, (x, weights, ids) = task.attributes, task.inputs[:3]
    assert isinstance(kind, ExpertMatmul)
    rows = ids.elements if kind.rows is None else kind.rows
    tokens = ids.shape[0]
    _, columns, inner = weights.shape
    if kind.rows is not None or ids.elements < EXPERT_BLOCK_ROWS:
        each = max(1, tiles(rows, kind.experts_read))
        return Lowered(
            instructions=(
                *product(task, each, inner, columns, x.dtype, times=kind.experts_read),
                *(_added(task, columns) if kind.rows is not None and len(x.shape) == 3 else ()),
            ),
            transfers=_matrices(task) if kind.rows is None else _every(task, kind.rows),
            depth=2 + (kind.experts_read if kind.rows is not None else _CHOSEN_STEPS * tokens),
            joins=1 if kind.rows is not None else tokens,
        )
    # At worst every expert's last block is nearly empty.
    blocks = tiles(max(1, rows - kind.experts_read + 1), EXPERT_BLOCK_ROWS) + kind.experts_read - 1
    matmul, *copies = product(task, EXPERT_BLOCK_ROWS, inner, columns, x.dtype, times=blocks)
    # The first product gathers tokens, the second adds to their results.
    gathers = len(x.shape) == 2
    width = inner * x.dtype.bytes if gathers else columns * _ADDED_TO
    moved = blocks * EXPERT_BLOCK_ROWS * width
    if kind.rewritten:
        held = tokens * (inner if gathers else columns) * x.dtype.bytes
        # Read and written, whole: the addition of rows by number is not done in its place.
        moved += 0 if gathers else blocks * 2 * held
        moved = moved if held > resident_bytes(task.chip) else 0
    steps = _STEPS_PER_BLOCK - (0 if task.chip.neuroncore in ("v1", "v2") else _DESCRIPTOR_STEPS)
    return Lowered(
        instructions=(replace(matmul, flops=kind.flops(task.inputs)), *copies),
        transfers=(*_matrices(task), Transfer(Stream.SPILL, moved)),
        depth=2 + blocks * steps,
        joins=1,
    )


def _matrices(task: Task) -> tuple[Transfer, ...]:
    """Matrices are fetched expert by expert, each when it is its turn."""
    return tuple(
        replace(one, stream=Stream.EXPERTS) if one.stream is Stream.WEIGHTS else one
        for one in task.transfers()
    )


def _every(task: Task, rows: int) -> tuple[Transfer, ...]:
    """Where every expert computes every token. The library adds none of their results before it has
    all of them: these, and what the second product reads, go to memory and come back where they
    have no room."""
    x, weights = task.inputs[:2]
    _, columns, inner = weights.shape
    sizes, times = [x.bytes], 1
    if len(x.shape) == 3:
        sizes, times = [rows * inner * x.dtype.bytes, rows * columns * x.dtype.bytes], 2
    spilled = times * sum(one for one in sizes if one > resident_bytes(task.chip))
    matrices = tuple(one for one in _matrices(task) if one.stream is Stream.EXPERTS)
    return (*matrices, Transfer(Stream.SPILL, spilled)) if spilled else matrices


def _added(task: Task, columns: int) -> tuple[Instruction, ...]:
    """Every expert's result is weighed and added; tokens lie on the partitions."""
    kind = task.attributes
    assert isinstance(kind, ExpertMatmul)
    groups = tiles(task.inputs[2].shape[0], task.chip.partitions)
    return (Instruction(Engine.VECTOR, "weigh and add", 2 * columns, kind.experts_read * groups),)


def _combine(task: Task) -> Lowered:
    x = task.inputs[0]
    work = elementwise(task, "weigh and add", x.elements, passes=2, flops=2 * x.elements)
    return Lowered(work, task.transfers(), depth=1)


RULES: dict[type[OperationKind], Rule] = {ExpertMatmul: _expert_matmul, Combine: _combine}
