"""Mixture of experts: the chosen experts' matrices, one after the other."""

from __future__ import annotations

from dataclasses import replace

from ridgeline_backends.neuron.instructions import Lowered, Stream, Transfer
from ridgeline_backends.neuron.lowering.rules import Rule, Task, elementwise, product, tiles
from ridgeline_backends.neuron.operations import Combine, ExpertMatmul
from ridgeline_backends.neuron.program import OperationKind

_BLOCKWISE_FROM = 64
"""Tokens from which on the libraries go block by block."""

_BLOCK_ROWS = 512
"""`block_size` of NxD Inference's blockwise products."""

_STEPS_PER_BLOCK = 15
"""Of one product of a block, each waiting for the one before: its expert's number is read, the
matrix's address made, its descriptors, the matrix fetched; the tokens' numbers read, their
descriptors, the rows gathered and turned; the product, its sums out of PSUM, weighed; descriptors
again, the rows of the result fetched, added to, written."""

_ADDED_TO = 2 * 4
"""Bytes of a number of the result that is fetched and written in fp32."""


def _expert_matmul(task: Task) -> Lowered:
    """A few tokens: each chosen expert's matrix is fetched by an address that the router made.
    Many: a loop over blocks, each of one expert's tokens, filled up."""
    kind, (x, weights, ids) = task.attributes, task.inputs[:3]
    assert isinstance(kind, ExpertMatmul)
    rows = ids.elements if kind.rows is None else kind.rows
    _, columns, inner = weights.shape
    if ids.shape[0] < _BLOCKWISE_FROM:
        each = max(1, tiles(rows, kind.experts_read))
        return Lowered(
            instructions=product(task, each, inner, columns, x.dtype, times=kind.experts_read),
            transfers=task.transfers(),
            depth=2 + kind.experts_read,
        )
    # At worst every expert's last block is nearly empty.
    blocks = tiles(max(1, rows - kind.experts_read + 1), _BLOCK_ROWS) + kind.experts_read - 1
    matmul, *copies = product(task, _BLOCK_ROWS, inner, columns, x.dtype, times=blocks)
    # The first product gathers tokens, the second adds to their results.
    width = inner * x.dtype.bytes if len(x.shape) == 2 else columns * _ADDED_TO
    moved = blocks * _BLOCK_ROWS * width
    return Lowered(
        instructions=(replace(matmul, flops=kind.flops(task.inputs)), *copies),
        transfers=(*task.transfers(), Transfer(Stream.SPILL, moved)),
        depth=2 + blocks * _STEPS_PER_BLOCK,
    )


def _combine(task: Task) -> Lowered:
    x = task.inputs[0]
    work = elementwise(task, "weigh and add", x.elements, passes=2, flops=2 * x.elements)
    return Lowered(work, task.transfers(), depth=1)


RULES: dict[type[OperationKind], Rule] = {ExpertMatmul: _expert_matmul, Combine: _combine}
