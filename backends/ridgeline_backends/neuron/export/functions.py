"""Operators that a traced module may call beside torch's own: what cores do together, and what has
no single operator in torch.

Eagerly, in one process, a module is on its own: sums and gathers of one core give what they got.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ridgeline_backends.models.rope import rotate


@torch.library.custom_op("neuron::all_reduce", mutates_args=())
def all_reduce(x: Tensor, size: int) -> Tensor:
    """The sum over the cores."""
    _alone(size)
    return x.clone()


@all_reduce.register_fake
def _(x: Tensor, size: int) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("neuron::all_gather", mutates_args=())
def all_gather(x: Tensor, axis: int, size: int) -> Tensor:
    """The cores' tensors beside each other along an axis."""
    _alone(size)
    return x.clone()


@all_gather.register_fake
def _(x: Tensor, axis: int, size: int) -> Tensor:
    return torch.cat([x] * size, axis)


@torch.library.custom_op("neuron::own_part", mutates_args=())
def own_part(x: Tensor, axis: int, size: int) -> Tensor:
    """Each core's own part along an axis."""
    _alone(size)
    return x.clone()


@own_part.register_fake
def _(x: Tensor, axis: int, size: int) -> Tensor:
    return torch.empty_like(x.chunk(size, axis)[0])


@torch.library.custom_op("neuron::sharded_embedding", mutates_args=())
def sharded_embedding(table: Tensor, ids: Tensor, size: int, rows: int) -> Tensor:
    """Rows of a table that is cut by rows, of `rows` in all; zeros for those of other cores."""
    _alone(size)
    return torch.nn.functional.embedding(ids, table)


@sharded_embedding.register_fake
def _(table: Tensor, ids: Tensor, size: int, rows: int) -> Tensor:
    return table.new_empty(*ids.shape, table.shape[1])


@torch.library.custom_op("neuron::rope", mutates_args=())
def rope(x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: x [batch, length, heads, dim], tables [positions, rotary dim] of which the
    sines carry the sign of the first half."""
    return rotate(x, cos[positions][:, :, None], sin[positions][:, :, None]).contiguous()


@rope.register_fake
def _(x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.empty_like(x)


def _alone(size: int) -> None:
    if size != 1:
        raise RuntimeError(
            f"This module was made for {size} cores; compile it to run it on them together."
        )
