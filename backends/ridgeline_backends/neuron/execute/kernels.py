"""What each kind of operation but attention computes, by torch, on whole tensors of one core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.models.arithmetic import gelu, gelu_tanh, silu, softcap
from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.execute.call import Call
from ridgeline_backends.neuron.execute.indexing_kernels import within
from ridgeline_backends.neuron.execute.registry import computes
from ridgeline_backends.neuron.program import ElementType


@computes(ops.Matmul)
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


@computes(ops.BatchMatmul)
def _batch_matmul(kind: ops.BatchMatmul, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return torch.matmul(inputs[0].float(), inputs[1].float())


@computes(ops.ExpertMatmul)
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


@computes(ops.Combine)
def _combine(kind: ops.Combine, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, weights = inputs
    return (x * weights[..., None]).sum(1)


@computes(ops.RMSNorm)
def _rms_norm(kind: ops.RMSNorm, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, weight = inputs
    return F.rms_norm(x, weight.shape, weight.float(), kind.eps)


@computes(ops.LayerNorm)
def _layer_norm(kind: ops.LayerNorm, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, *vectors = inputs
    weight, bias = _pair(vectors)
    return F.layer_norm(x, x.shape[-1:], weight, bias, kind.eps)


@computes(ops.GroupNorm)
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
    "floor": lambda x, _: torch.floor(x),
    "ceil": lambda x, _: torch.ceil(x),
    "round": lambda x, _: torch.round(x),
    "truncate": lambda x, _: torch.trunc(x),
    "sign": lambda x, _: torch.sign(x),
    "log1p": lambda x, _: torch.log1p(x),
    "expm1": lambda x, _: torch.expm1(x),
    "tan": lambda x, _: torch.tan(x),
    "asin": lambda x, _: torch.asin(x),
    "acos": lambda x, _: torch.acos(x),
    "atan": lambda x, _: torch.atan(x),
    "sinh": lambda x, _: torch.sinh(x),
    "cosh": lambda x, _: torch.cosh(x),
    "asinh": lambda x, _: torch.asinh(x),
    "acosh": lambda x, _: torch.acosh(x),
    "atanh": lambda x, _: torch.atanh(x),
    "isnan": lambda x, _: torch.isnan(x),
    "isinf": lambda x, _: torch.isinf(x),
    "not": lambda x, _: torch.bitwise_not(x),
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
    "floor_divide": partial(torch.div, rounding_mode="floor"),
    "truncate_divide": partial(torch.div, rounding_mode="trunc"),
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "power": torch.pow,
    "atan2": torch.atan2,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "and": torch.bitwise_and,
    "or": torch.bitwise_or,
    "xor": torch.bitwise_xor,
    "shift_left": torch.bitwise_left_shift,
    "shift_right": torch.bitwise_right_shift,
    "less": torch.lt,
    "less_equal": torch.le,
    "equal": torch.eq,
    "not_equal": torch.ne,
}
_GATED = {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh}


@computes(ops.Unary)
def _unary(kind: ops.Unary, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x = inputs[0]
    # A weight is kept as its type; engines compute in fp32.
    return _UNARY[kind.function](x.float() if x.is_floating_point() else x, kind.operand)


@computes(ops.Binary)
def _binary(kind: ops.Binary, inputs: Sequence[Tensor], call: Call) -> Tensor:
    left, right = (x.float() if x.is_floating_point() else x for x in inputs[-2:])
    if kind.function == "where":
        return torch.where(inputs[0], left, right)
    return _BINARY[kind.function](left, right)


@computes(ops.Gated)
def _gated(kind: ops.Gated, inputs: Sequence[Tensor], call: Call) -> Tensor:
    gate, up = inputs[0].chunk(2, -1)
    return _GATED[kind.function](gate).mul_(up)


@computes(ops.Softmax)
def _softmax(kind: ops.Softmax, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return torch.softmax(inputs[0], kind.axis)


@computes(ops.Cast)
def _cast(kind: ops.Cast, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x = inputs[0]
    if kind.output.floating:
        return x.float()
    if kind.output is ElementType.BOOL:
        return x != 0
    # Kept in 64 bits, whole numbers begin anew beyond the last of 32 where they are told to.
    return x.long() if x.is_floating_point() else x.to(torch.int32).long()


@computes(ops.Reshape)
def _reshape(kind: ops.Reshape, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return inputs[0].reshape(kind.shape)


@computes(ops.Slice)
def _slice(kind: ops.Slice, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x = inputs[0]
    own = [slice(None)] * x.dim()
    own[kind.axis] = slice(kind.start, kind.stop, kind.step)
    return x[tuple(own)]


@computes(ops.Split)
def _split(kind: ops.Split, inputs: Sequence[Tensor], call: Call) -> tuple[Tensor, ...]:
    return torch.split(inputs[0], list(kind.sizes), kind.axis)


@computes(ops.Expand)
def _expand(kind: ops.Expand, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return inputs[0].expand(kind.shape)


@computes(ops.Transpose)
def _transpose(kind: ops.Transpose, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return inputs[0].permute(kind.order)


@computes(ops.Concat)
def _concat(kind: ops.Concat, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return torch.cat(list(inputs), kind.axis)


@computes(ops.OwnPart)
def _own_part(kind: ops.OwnPart, inputs: Sequence[Tensor], call: Call) -> Tensor:
    group = kind.group.of(call.rank)
    return inputs[0].chunk(kind.group.size, kind.axis)[group.index(call.rank)]


@computes(ops.Embedding)
def _embedding(kind: ops.Embedding, inputs: Sequence[Tensor], call: Call) -> Tensor:
    table, ids, *rank = inputs
    if kind.known is not None:
        ids = within(ids, kind.known, "the embedding")
    if not rank:
        return _held(F.embedding(ids.clamp(min=0), table))
    local = ids - int(rank[0]) * table.shape[0]
    outside = (local < 0) | (local >= table.shape[0])
    found = _held(F.embedding(local.masked_fill(outside, 0), table))
    return found.masked_fill(outside[..., None], 0)


def _held(x: Tensor) -> Tensor:
    """As numbers are between two operations."""
    if x.is_floating_point():
        return x.float()
    return x if x.dtype is torch.bool else x.long()


@computes(ops.Take)
def _take(kind: ops.Take, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, places = inputs
    return x[torch.arange(len(places)), places][:, None]


@computes(ops.Reduce)
def _reduce(kind: ops.Reduce, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, axes = inputs[0], list(kind.axes)
    if kind.function == "max":
        return x.amax(axes, kind.keep)
    if kind.function == "min":
        return x.amin(axes, kind.keep)
    if kind.function == "product":
        for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
            x = x.prod(axis, kind.keep)
        return x
    return x.sum(axes, kind.keep) if kind.function == "sum" else x.mean(axes, kind.keep)


@computes(ops.ArgMax)
def _argmax(kind: ops.ArgMax, inputs: Sequence[Tensor], call: Call) -> Tensor:
    return inputs[0].argmax(-1)


@computes(ops.TopK)
def _top_k(kind: ops.TopK, inputs: Sequence[Tensor], call: Call) -> tuple[Tensor, ...]:
    values, ids = inputs[0].topk(kind.k, largest=kind.largest)
    return values, ids


_POOLS: dict[tuple[str, int], Callable[..., Tensor]] = {
    ("max", 1): F.max_pool1d,
    ("max", 2): F.max_pool2d,
    ("max", 3): F.max_pool3d,
    ("mean", 1): F.avg_pool1d,
    ("mean", 2): F.avg_pool2d,
    ("mean", 3): F.avg_pool3d,
}


@computes(ops.Convolution)
def _convolution(kind: ops.Convolution, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, weight, *bias = inputs
    axes = len(kind.stride)
    return torch.convolution(
        x,
        weight.float(),
        bias[0].float() if bias else None,
        kind.stride,
        kind.padding,
        kind.dilation or (1,) * axes,
        kind.transposed,
        kind.longer or (0,) * axes,
        kind.groups,
    )


@computes(ops.Pool)
def _pool(kind: ops.Pool, inputs: Sequence[Tensor], call: Call) -> Tensor:
    pool = _POOLS[kind.function, len(kind.window)]
    return pool(inputs[0], kind.window, kind.stride, kind.padding)


@computes(ops.Upsample)
def _upsample(kind: ops.Upsample, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x = inputs[0]
    for axis in range(2, x.dim()):
        x = x.repeat_interleave(kind.factor, axis)
    return x
