"""Operators that torch takes apart nowhere, or not in `torch.export`, written with others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch._ops import OpOverload

_ATEN = torch.ops.aten
_SUM, _MEAN, _MAX = 0, 1, 2


def searchsorted(
    edges: Tensor,
    values: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """How many edges are below each value, or not above it."""
    if sorter is not None:
        edges = edges.gather(-1, sorter)
    edges = edges.unsqueeze(-2) if edges.ndim > 1 else edges
    wide = values.unsqueeze(-1)
    below = edges <= wide if right or side == "right" else edges < wide
    if values.is_floating_point():
        below = below | wide.isnan()  # behind all
    return below.sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def bucketize(
    values: Tensor, edges: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    return searchsorted(edges, values, out_int32=out_int32, right=right)


def kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    values, places = x.sort(dim=dim, stable=True)
    if not x.ndim:
        return values, places
    values, places = values.narrow(dim, k - 1, 1), places.narrow(dim, k - 1, 1)
    return (values, places) if keepdim else (values.squeeze(dim), places.squeeze(dim))


def median_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower of two in the middle; the first NaN where there is one."""
    size = x.shape[dim] if x.ndim else 1
    values, places = kthvalue(x, (size + 1) // 2, dim, keepdim)
    if not x.is_floating_point():
        return values, places
    unknown = x.isnan()
    some = unknown.any(dim, keepdim)
    first = unknown.int().argmax(dim, keepdim)
    return torch.where(some, torch.nan, values), torch.where(some, first, places)


def median(x: Tensor) -> Tensor:
    return median_dim(x.flatten(), 0)[0]


def masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The first of `source` at the first place of the mask, and so on."""
    shape = torch.broadcast_shapes(x.shape, mask.shape)  # type: ignore[no-untyped-call]
    x, mask = x.expand(shape), mask.expand(shape)
    places = (mask.flatten().long().cumsum(0) - 1).clamp(min=0)
    # Where the mask has no place, any will do.
    places = torch.where(mask.flatten(), places, 0)
    return torch.where(mask, source.flatten()[places].view(x.shape), x)


def embedding_bag(
    table: Tensor,
    ids: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = _SUM,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which ids are of which bag is a matrix [bags, ids] of ones and zeros."""
    count = ids.shape[0]
    ends = offsets if include_last_offset else torch.cat([offsets, offsets.new_full((1,), count)])
    places = torch.arange(count, device=ids.device)
    member = (places >= ends[:-1, None]) & (places < ends[1:, None])
    if padding_idx >= 0:
        member = member & (ids != padding_idx)
    rows = torch.nn.functional.embedding(ids, table)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[:, None]
    sizes = member.sum(1)
    if mode == _MAX:
        found = torch.where(member[:, :, None], rows, -torch.inf).amax(1)
        found = torch.where(sizes[:, None] > 0, found, 0.0)
    else:
        found = member.to(rows.dtype) @ rows
        if mode == _MEAN:
            found = found / sizes.clamp(min=1)[:, None]
    # What only gradients need.
    unread = torch.zeros_like(ids)
    return found, unread, sizes, unread


DECOMPOSITIONS: dict[OpOverload, Callable[..., Any]] = {
    _ATEN.searchsorted.Tensor: searchsorted,
    _ATEN.bucketize.Tensor: bucketize,
    _ATEN.kthvalue.default: kthvalue,
    _ATEN.median.dim: median_dim,
    _ATEN.median.default: median,
    _ATEN.masked_scatter.default: masked_scatter,
    _ATEN._embedding_bag_forward_only.default: embedding_bag,
    _ATEN._embedding_bag.default: embedding_bag,
    _ATEN.grid_sampler_2d.default: decomposition_table[_ATEN.grid_sampler_2d.default],
}
