"""What rotary positions, caches and attention compute, by torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.models.rope import rotate
from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.execute.attention import TILE, attend, padded_keys, tiles_of
from ridgeline_backends.neuron.execute.call import Call
from ridgeline_backends.neuron.execute.registry import computes

_QUERIES = 64
"""Queries of a prompt that look at their keys together."""


@computes(ops.Rope)
def _rope(kind: ops.Rope, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, positions, cos, sin = inputs
    rows = call.once("clamped", positions, lambda: positions.clamp(min=0))
    turned = call.once("cos", cos, lambda: cos[rows][:, :, None])
    return rotate(x, turned, call.once("sin", sin, lambda: sin[rows][:, :, None]))


@computes(ops.KVWrite)
def _kv_write(kind: ops.KVWrite, inputs: Sequence[Tensor], call: Call) -> Tensor:
    cache, new, positions, slots = inputs

    def places() -> tuple[Tensor, ...]:
        rows, columns = (positions >= 0).nonzero(as_tuple=True)
        return rows, columns, slots[rows], positions[rows, columns]

    rows, columns, owners, entries = call.once("places", positions, places)
    # What overflowed in one sequence must not reach the next holder of its slot.
    kept = new[rows, columns].nan_to_num()
    cache[owners, :, entries] = kept.to(cache.dtype)
    return cache


@computes(ops.CachedAttention)
def _cached_attention(kind: ops.CachedAttention, inputs: Sequence[Tensor], call: Call) -> Tensor:
    q, k_cache, v_cache, positions, slots = inputs
    batch, queries, heads, dim = q.shape
    kv_heads = k_cache.shape[1]
    group = heads // kv_heads
    # What lies beyond the last live entry is masked: to read it would change nothing.
    live = call.once("live", positions, lambda: int(positions.max()) + 1)
    keys = min(kind.length, max(live, 1))
    span = min(tiles_of(keys) * TILE, k_cache.shape[2])
    k, v = (padded_keys(cache[slots, :, :span].float(), 2) for cache in (k_cache, v_cache))

    def masked() -> Tensor:
        places = torch.arange(k.shape[2])
        seen = positions.repeat_interleave(group, 1)[:, None, :, None]
        hidden = places > seen
        return hidden if kind.window is None else hidden | (places <= seen - kind.window)

    hidden = call.once(f"hidden {group} {kind.window}", positions, masked)
    rows = q.view(batch, queries, kv_heads, group, dim).transpose(1, 2)
    out = attend(
        rows.reshape(batch, kv_heads, queries * group, dim),
        k,
        v,
        hidden,
        scale=kind.scale,
        cap=kind.softcap,
        dtype=call.dtype,
    )
    out = out.view(batch, kv_heads, queries, group, -1).transpose(1, 2)
    return out.reshape(batch, queries, heads, -1)


@computes(ops.Attention)
def _attention(kind: ops.Attention, inputs: Sequence[Tensor], call: Call) -> Tensor:
    q, k, v, *rest = inputs
    lengths = rest[0] if kind.masked else None
    bias = rest[-1] if kind.biased else None
    batch, queries, heads, dim = q.shape
    kv_heads, keys = k.shape[2], k.shape[1]
    group = heads // kv_heads
    k, v = (padded_keys(one.transpose(1, 2), 2) for one in (k, v))
    parts = []
    for begin in range(0, queries, _QUERIES):
        end = min(begin + _QUERIES, queries)
        first, last = _span(kind, begin, end, keys)
        places = torch.arange(first, last)
        seen = torch.arange(begin, end).repeat_interleave(group)[:, None]
        hidden = (places >= keys).expand(len(seen), -1)
        if kind.causal:
            hidden = hidden | (places > seen)
        if kind.causal and kind.window is not None:
            hidden = hidden | (places <= seen - kind.window)
        masked = hidden[None, None]
        if lengths is not None:
            masked = masked | (places >= lengths[:, None])[:, None, None]
        rows = q[:, begin:end].reshape(batch, -1, kv_heads, group, dim).transpose(1, 2)
        out = attend(
            rows.reshape(batch, kv_heads, -1, dim),
            k[:, :, first:last],
            v[:, :, first:last],
            masked,
            scale=kind.scale,
            cap=kind.softcap,
            dtype=call.dtype,
            bias=None if bias is None else _rows_of(bias, begin, end, first, last, kv_heads),
        )
        out = out.view(batch, kv_heads, end - begin, group, -1).transpose(1, 2)
        parts.append(out.reshape(batch, end - begin, heads, -1))
    return torch.cat(parts, 1)


def _span(kind: ops.Attention, begin: int, end: int, keys: int) -> tuple[int, int]:
    """The keys that queries `begin` to `end` may see, in whole tiles."""
    whole = tiles_of(keys) * TILE
    if not kind.causal:
        return 0, whole
    first = 0 if kind.window is None else max(0, begin - kind.window + 1) // TILE * TILE
    return first, min(tiles_of(end) * TILE, whole)


def _rows_of(bias: Tensor, begin: int, end: int, first: int, last: int, kv_heads: int) -> Tensor:
    """bias [1 or batch, 1 or heads, 1 or queries, keys] as `attend` has rows and keys."""
    own = bias[:, :, begin:end] if bias.shape[2] > 1 else bias.expand(-1, -1, end - begin, -1)
    own = F.pad(own, (0, max(0, last - own.shape[3])))[..., first:last]
    if own.shape[1] == 1:
        own = own.expand(-1, kv_heads, -1, -1)
    grouped = own.reshape(own.shape[0], kv_heads, -1, *own.shape[2:])
    return grouped.transpose(2, 3).reshape(own.shape[0], kv_heads, -1, own.shape[3])
