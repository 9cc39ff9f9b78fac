"""Attention whose bits depend on a sequence's own tokens alone.

Keys come in tiles of a fixed number. Every tile's product is one of a fixed shape, and tiles are
summed in their order; one that a query does not see adds exactly nothing. So it does not matter to
how long a bucket a prompt was padded, how much of the cache a step was compiled to read, or who
else is in the batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.models.arithmetic import softcap
from ridgeline_backends.neuron.execute.rounding import rounded
from ridgeline_backends.neuron.program import ElementType

TILE = 64
_ROWS = 4
"""Matrix products of other row counts take another path in the library, with other last bits."""

# Finite, so that a row that sees nothing gives numbers, not NaN.
_HIDDEN = -1e30


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    hidden: Tensor | None,
    *,
    scale: float,
    cap: float | None,
    dtype: ElementType,
    bias: Tensor | None = None,
) -> Tensor:
    """q [n, KV heads, rows, dim] over k and v [n, KV heads, keys, dim or width], keys a multiple of
    `TILE` -> [n, KV heads, rows, width]. `hidden` and `bias` stretch to [n, KV heads, rows, keys].
    The shares are rounded to `dtype` before they weigh the values."""
    n, heads, rows, dim = q.shape
    width, tiles = v.shape[-1], k.shape[2] // TILE
    padded = F.pad(q * scale, (0, 0, 0, -rows % _ROWS))
    left = padded[:, :, None].expand(n, heads, tiles, -1, dim).reshape(-1, padded.shape[2], dim)
    right = k.reshape(n * heads * tiles, TILE, dim)
    scores = torch.bmm(left, right.transpose(1, 2)).view(n, heads, tiles, -1, TILE)[..., :rows, :]
    scores = scores.transpose(2, 3).reshape(n, heads, rows, tiles * TILE)
    if cap is not None:
        scores = softcap(scores, cap)
    if bias is not None:
        scores = scores + bias
    if hidden is not None:
        scores = scores.masked_fill(hidden, _HIDDEN)
    largest = scores.amax(-1, keepdim=True)
    if bias is not None:
        largest = largest.clamp(min=_HIDDEN)
    shares = torch.exp(scores - largest)
    by_tile = shares.view(n, heads, rows, tiles, TILE)
    total = _in_order(by_tile.sum(-1), -1)
    if bias is not None:
        # A row that a mask hides everything from gives zeros, as in torch. Others add up to 1.
        total = total.clamp(min=torch.finfo(torch.float32).tiny)
    shares = rounded(by_tile / total[..., None, None], dtype)
    tiled = F.pad(shares.transpose(2, 3), (0, 0, 0, -rows % _ROWS))
    parts = torch.bmm(tiled.reshape(n * heads * tiles, -1, TILE), v.reshape(-1, TILE, width))
    return _in_order(parts.view(n, heads, tiles, -1, width)[..., :rows, :], 2)


def _in_order(parts: Tensor, axis: int) -> Tensor:
    """Their sum, one after the other: more zeros at the end change nothing."""
    if parts.shape[axis] == 1:
        return parts.squeeze(axis)
    return parts.cumsum(axis).select(axis, -1)


def tiles_of(keys: int) -> int:
    """Tiles that hold so many keys."""
    return -(-keys // TILE)


def padded_keys(x: Tensor, axis: int) -> Tensor:
    """Zeros behind the last key, up to a whole tile."""
    missing = -x.shape[axis] % TILE
    if not missing:
        return x
    return F.pad(x, (*(0, 0) * (x.dim() - 1 - axis), 0, missing))
