"""What each kind of operation computes, by torch, on whole tensors of one core.

A kernel gets the operation's attributes, its inputs and the `Call` they belong to. It computes in
float32; the executor rounds what it gives to the type of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.models.arithmetic import gelu, gelu_tanh, silu, softcap
from ridgeline_backends.models.rope import rotate
from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.execute.attention import TILE, attend, padded_keys, tiles_of
from ridgeline_backends.neuron.execute.call import Call
from ridgeline_backends.neuron.execute.native_attention import (
    attend_native,
    kernels_for,
    prompt_rows,
)
from ridgeline_backends.neuron.program import OperationKind

Results = Tensor | tuple[Tensor, ...]
Kernel = Callable[[OperationKind, Sequence[Tensor], Call], Results]
Kind = TypeVar("Kind", bound=OperationKind)

KERNELS: dict[type[OperationKind], Kernel] = {}

_QUERIES = 64
"""Queries of a prompt that look at their keys together."""


def _computes(
    kind: type[Kind],
) -> Callable[[Callable[[Kind, Sequence[Tensor], Call], Results]], Kernel]:
    """Register what computes a kind."""

    def register(function: Callable[[Kind, Sequence[Tensor], Call], Results]) -> Kernel:
        KERNELS[kind] = kernel = cast(Kernel, function)
        return kernel

    return register


@_computes(ops.Matmul)
def _matmul(kind: ops.Matmul, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, weight, *vectors = inputs
    out = F.linear(x.reshape(-1, x.shape[-1]), weight.float())
    return scaled_and_biased(kind, out, vectors).reshape(*x.shape[:-1], out.shape[-1])


def scaled_and_biased(kind: ops.Matmul, out: Tensor, vectors: Sequence[Tensor]) -> Tensor:
    """What follows a product; vectors stretch to its rows."""
    if kind.scaled:
        out = out * vectors[-1]
    if kind.biased:
        out = out + vectors[0]
    return out


@_computes(ops.BatchMatmul)
def _batch_matmul(kind: ops.BatchMatmul, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return torch.matmul(inputs[0].float(), inputs[1].float())


@_computes(ops.ExpertMatmul)
def _expert_matmul(kind: ops.ExpertMatmul, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, weights, ids, *rank = inputs
    experts = weights.shape[0]
    local = ids - int(rank[0]) * experts if rank else ids
    out = torch.zeros(*ids.shape, weights.shape[1])
    apart = x if x.dim() == 3 else x[:, None].expand(-1, ids.shape[1], -1)
    for expert in sorted(set(local.flatten().tolist())):
        if 0 <= expert < experts:
            own = local == expert
            out[own] = F.linear(apart[own], weights[expert].float())
    return out


@_computes(ops.Combine)
def _combine(kind: ops.Combine, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, weights = inputs
    return (x * weights[..., None]).sum(1)


@_computes(ops.RMSNorm)
def _rms_norm(kind: ops.RMSNorm, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, weight = inputs
    return F.rms_norm(x, weight.shape, weight.float(), kind.eps)


@_computes(ops.LayerNorm)
def _layer_norm(kind: ops.LayerNorm, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, *vectors = inputs
    weight, bias = _pair(vectors)
    return F.layer_norm(x, x.shape[-1:], weight, bias, kind.eps)


@_computes(ops.GroupNorm)
def _group_norm(kind: ops.GroupNorm, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, *vectors = inputs
    weight, bias = _pair(vectors)
    return F.group_norm(x, kind.groups, weight, bias, kind.eps)


def _pair(vectors: Sequence[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias, as far as there are any."""
    found = [one.float() for one in vectors]
    return found[0] if found else None, found[1] if len(found) > 1 else None


_UNARY: dict[str, Callable[[Tensor, float], Tensor]] = {
    "silu": lambda x, _: silu(x),
    "gelu": lambda x, _: gelu(x),
    "gelu_tanh": lambda x, _: gelu_tanh(x),
    "quick_gelu": lambda x, _: x / torch.exp(-1.702 * x).add_(1),
    "relu": lambda x, _: F.relu(x),
    "sigmoid": lambda x, _: 1 / torch.exp(-x).add_(1),
    "tanh": lambda x, _: torch.tanh(x),
    "exp": lambda x, _: torch.exp(x),
    "log": lambda x, _: torch.log(x),
    "sqrt": lambda x, _: torch.sqrt(x),
    "rsqrt": lambda x, _: torch.rsqrt(x),
    "reciprocal": lambda x, _: torch.reciprocal(x),
    "negate": lambda x, _: -x,
    "absolute": lambda x, _: x.abs(),
    "sin": lambda x, _: torch.sin(x),
    "cos": lambda x, _: torch.cos(x),
    "erf": lambda x, _: torch.erf(x),
    "softcap": lambda x, cap: softcap(x.clone(), cap),
    "scale": lambda x, by: x * by,
    "shift": lambda x, by: x + by,
    "power": lambda x, exponent: x**exponent,
}
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "less": torch.lt,
    "equal": torch.eq,
}
_GATED = {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh}


@_computes(ops.Unary)
def _unary(kind: ops.Unary, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return _UNARY[kind.function](inputs[0], kind.operand)


@_computes(ops.Binary)
def _binary(kind: ops.Binary, inputs: Sequence[Tensor], call: Call) -> Tensor:
    if kind.function == "where":
        return torch.where(inputs[0], inputs[1], inputs[2])
    return _BINARY[kind.function](inputs[0], inputs[1])


@_computes(ops.Gated)
def _gated(kind: ops.Gated, inputs: Sequence[Tensor], call: Call) -> Tensor:
    gate, up = inputs[0].chunk(2, -1)
    return _GATED[kind.function](gate).mul_(up)


@_computes(ops.Softmax)
def _softmax(kind: ops.Softmax, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return torch.softmax(inputs[0], kind.axis)


@_computes(ops.Cast)
def _cast(kind: ops.Cast, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x = inputs[0]
    if kind.output.floating:
        return x.float()
    return x != 0 if kind.output.value == "bool" else x.long()


@_computes(ops.Reshape)
def _reshape(kind: ops.Reshape, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return inputs[0].reshape(kind.shape)


@_computes(ops.Slice)
def _slice(kind: ops.Slice, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x = inputs[0]
    own = [slice(None)] * x.dim()
    own[kind.axis] = slice(kind.start, kind.stop, kind.step)
    return x[tuple(own)]


@_computes(ops.Split)
def _split(kind: ops.Split, inputs: Sequence[Tensor], call: Call) -> tuple[Tensor, ...]:
    return torch.split(inputs[0], list(kind.sizes), kind.axis)


@_computes(ops.Expand)
def _expand(kind: ops.Expand, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return inputs[0].expand(kind.shape)


@_computes(ops.Transpose)
def _transpose(kind: ops.Transpose, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return inputs[0].permute(kind.order)


@_computes(ops.Concat)
def _concat(kind: ops.Concat, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return torch.cat(list(inputs), kind.axis)


@_computes(ops.OwnPart)
def _own_part(kind: ops.OwnPart, inputs: Sequence[Tensor], call: Call) -> Tensor:
    group = kind.group.of(call.rank)
    return inputs[0].chunk(kind.group.size, kind.axis)[group.index(call.rank)]


@_computes(ops.Embedding)
def _embedding(kind: ops.Embedding, inputs: Sequence[Tensor], call: Call) -> Tensor:
    table, ids, *rank = inputs
    if not rank:
        return F.embedding(ids.clamp(min=0), table).float()
    local = ids - int(rank[0]) * table.shape[0]
    outside = (local < 0) | (local >= table.shape[0])
    found = F.embedding(local.masked_fill(outside, 0), table).float()
    return found.masked_fill(outside[..., None], 0)


@_computes(ops.Take)
def _take(kind: ops.Take, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, places = inputs
    return x[torch.arange(len(places)), places][:, None]


@_computes(ops.Reduce)
def _reduce(kind: ops.Reduce, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, axes = inputs[0], list(kind.axes)
    if kind.function == "max":
        return x.amax(axes, kind.keep)
    return x.sum(axes, kind.keep) if kind.function == "sum" else x.mean(axes, kind.keep)


@_computes(ops.ArgMax)
def _argmax(kind: ops.ArgMax, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return inputs[0].argmax(-1)


@_computes(ops.TopK)
def _top_k(kind: ops.TopK, inputs: Sequence[Tensor], call: Call) -> tuple[Tensor, ...]:
    values, ids = inputs[0].topk(kind.k)
    return values, ids


@_computes(ops.Rope)
def _rope(kind: ops.Rope, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, positions, cos, sin = inputs
    rows = call.once("clamped", positions, lambda: positions.clamp(min=0))
    turned = call.once("cos", cos, lambda: cos[rows][:, :, None])
    return rotate(x, turned, call.once("sin", sin, lambda: sin[rows][:, :, None]))


@_computes(ops.KVWrite)
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


@_computes(ops.CachedAttention)
def _cached_attention(kind: ops.CachedAttention, inputs: Sequence[Tensor], call: Call) -> Tensor:
    q, k_cache, v_cache, positions, slots = inputs
    native = kernels_for(call.dtype)
    if native is not None:
        return attend_native(
            native,
            q,
            k_cache,
            v_cache,
            positions,
            slots,
            call.scratch,
            scale=kind.scale,
            cap=kind.softcap,
            window=kind.window,
            dtype=call.dtype,
        )
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


@_computes(ops.Attention)
def _attention(kind: ops.Attention, inputs: Sequence[Tensor], call: Call) -> Tensor:
    q, k, v, *rest = inputs
    native = kernels_for(call.dtype)
    if native is not None and kind.causal and not rest and q.shape[1] == k.shape[1]:
        return attend_native(
            native,
            q,
            k.transpose(1, 2),
            v.transpose(1, 2),
            *prompt_rows(*q.shape[:2]),
            call.scratch,
            scale=kind.scale,
            cap=kind.softcap,
            window=kind.window,
            dtype=call.dtype,
        )
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


_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_POOLS: dict[tuple[str, int], Callable[..., Tensor]] = {
    ("max", 1): F.max_pool1d,
    ("max", 2): F.max_pool2d,
    ("max", 3): F.max_pool3d,
    ("mean", 1): F.avg_pool1d,
    ("mean", 2): F.avg_pool2d,
    ("mean", 3): F.avg_pool3d,
}


@_computes(ops.Convolution)
def _convolution(kind: ops.Convolution, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, weight, *bias = inputs
    convolve = _CONVOLUTIONS[len(kind.stride)]
    return convolve(
        x,
        weight.float(),
        bias[0].float() if bias else None,
        kind.stride,
        kind.padding,
        1,
        kind.groups,
    )


@_computes(ops.Pool)
def _pool(kind: ops.Pool, inputs: Sequence[Tensor], call: Call) -> Tensor:
    pool = _POOLS[kind.function, len(kind.window)]
    return pool(inputs[0], kind.window, kind.stride, kind.padding)


@_computes(ops.Upsample)
def _upsample(kind: ops.Upsample, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x = inputs[0]
    for axis in range(2, x.dim()):
        x = x.repeat_interleave(kind.factor, axis)
    return x
