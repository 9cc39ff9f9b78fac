"""Mixture of experts: the chosen experts' matrices, one after the other."""

from __future__ import annotations

from ridgeline_backends.neuron.instructions import Lowered
from ridgeline_backends.neuron.lowering.rules import Rule, Task, elementwise, product, tiles
from ridgeline_backends.neuron.operations import Combine, ExpertMatmul
from ridgeline_backends.neuron.program import OperationKind

_BLOCKWISE_FROM = 64
"""Tokens from which on the libraries go block by block."""

_BLOCK_ROWS = 128
_STEPS_PER_BLOCK = 20
"""Of one product of a block: addresses, gathering, a matrix, sums out of PSUM, scattering, each a
dynamic DMA with its descriptors, its start and its semaphore."""


def _expert_matmul(task: Task) -> Lowered:
    kind, (x, weights, ids) = task.attributes, task.inputs[:3]
    assert isinstance(kind, ExpertMatmul)
    rows = ids.elements if kind.rows is None else kind.rows
    each = max(1, tiles(rows, kind.experts_read))
    _, columns, inner = weights.shape
    return Lowered(
        instructions=product(task, each, inner, columns, x.dtype, times=kind.experts_read),
        transfers=task.transfers(),
        depth=2 + _dependent_steps(kind, ids.shape[0], rows),
    )


def _dependent_steps(kind: ExpertMatmul, tokens: int, rows: int) -> int:
    """A few tokens: each chosen expert's matrix is fetched by an address that the router made.
    Many: a loop over blocks of tokens of one expert, at least one for each, whose turns gather
    rows, fetch a matrix, multiply and scatter, all by addresses, each after the other."""
    if tokens < _BLOCKWISE_FROM:
        return kind.experts_read
    return (kind.experts_read + rows // _BLOCK_ROWS) * _STEPS_PER_BLOCK


def _combine(task: Task) -> Lowered:
    x = task.inputs[0]
    work = elementwise(task, "weigh and add", x.elements, passes=2, flops=2 * x.elements)
    return Lowered(work, task.transfers(), depth=1)


RULES: dict[type[OperationKind], Rule] = {ExpertMatmul: _expert_matmul, Combine: _combine}
