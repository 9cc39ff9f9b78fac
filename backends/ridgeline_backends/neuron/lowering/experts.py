"""Mixture of experts: the chosen experts' matrices, one after the other."""

from __future__ import annotations

from dataclasses import replace

from ridgeline_backends.neuron.instructions import Engine, Instruction, Lowered, Stream, Transfer
from ridgeline_backends.neuron.lowering.rules import Rule, Task, elementwise, product, tiles
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
            transfers=_matrices(task),
            depth=2 + (kind.experts_read if kind.rows is not None else _CHOSEN_STEPS * tokens),
            joins=1 if kind.rows is not None else tokens,
        )
    # At worst every expert's last block is nearly empty.
    blocks = tiles(max(1, rows - kind.experts_read + 1), EXPERT_BLOCK_ROWS) + kind.experts_read - 1
    matmul, *copies = product(task, EXPERT_BLOCK_ROWS, inner, columns, x.dtype, times=blocks)
    # The first product gathers tokens, the second adds to their results.
    width = inner * x.dtype.bytes if len(x.shape) == 2 else columns * _ADDED_TO
    moved = blocks * EXPERT_BLOCK_ROWS * width
    steps = _STEPS_PER_BLOCK - (0 if task.chip.neuroncore in ("v1", "v2") else _DESCRIPTOR_STEPS)
    if kind.rewritten and len(x.shape) == 3:
        # Read and written, whole: the addition of rows by number is not done in its place.
        moved += blocks * 2 * ids.shape[0] * columns * x.dtype.bytes
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
