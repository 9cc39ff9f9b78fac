"""torch's norms over layers, groups and batches, as operations."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.export.reduce_operators import reduced
from ridgeline_backends.neuron.export.registry import HINTS, Result, Value, translates
from ridgeline_backends.neuron.export.writer import Writer
from ridgeline_backends.neuron.program import Buffer, ElementType


@translates("aten.layer_norm.default", "aten.native_layer_norm.default")
def _layer_norm(
    w: Writer,
    x: Buffer,
    shape: Sequence[int],
    weight: Value = None,
    bias: Value = None,
    eps: float = 1e-5,
    cudnn_enable: bool = False,
) -> Result:
    vectors = _vectors(w, weight, bias, prod(shape))
    found = w.reshape(w.add(ops.LayerNorm(eps), _flat(w, x, shape), *vectors), *x.shape)
    return [found, None, None] if "native" in w.operator else found


def _flat(w: Writer, x: Buffer, shape: Sequence[int]) -> Buffer:
    """With the axes of a norm as one."""
    return w.reshape(x, *x.shape[: len(x.shape) - len(shape)], prod(shape))


def _vectors(w: Writer, weight: Value, bias: Value, size: int) -> tuple[Buffer, ...]:
    """Weight and bias as vectors; a bias alone has a weight of ones before it."""
    if weight is None and bias is not None:
        weight = torch.ones(size)
    found = (w.tensor(one) for one in (weight, bias) if one is not None)
    return tuple(w.reshape(one, size) for one in found)


@translates("aten.rms_norm.default")
def _rms_norm(
    w: Writer, x: Buffer, shape: Sequence[int], weight: Value = None, eps: float | None = None
) -> Buffer:
    size = prod(shape)
    found = w.reshape(w.tensor(torch.ones(size) if weight is None else weight), size)
    kind = ops.RMSNorm(torch.finfo(torch.float32).eps if eps is None else eps)
    return w.reshape(w.add(kind, _flat(w, x, shape), found), *x.shape)


@translates("aten.group_norm.default")
def _group_norm(
    w: Writer,
    x: Buffer,
    groups: int,
    weight: Value = None,
    bias: Value = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Buffer:
    return w.add(ops.GroupNorm(groups, eps), x, *_vectors(w, weight, bias, x.shape[1]))


@translates("aten.native_group_norm.default")
def _native_group_norm(
    w: Writer,
    x: Buffer,
    weight: Value,
    bias: Value,
    batch: int,
    channels: int,
    places: int,
    groups: int,
    eps: float,
) -> Result:
    return [_group_norm(w, x, groups, weight, bias, eps), None, None]


@translates("aten._native_batch_norm_legit_no_training.default")
def _batch_norm(
    w: Writer,
    x: Buffer,
    weight: Value,
    bias: Value,
    mean: Value,
    var: Value,
    momentum: float,
    eps: float,
) -> Result:
    """By the statistics that the module has; `momentum` is of their change in training."""
    return [_normed(w, x, w.tensor(mean), w.tensor(var), weight, bias, eps), None, None]


@translates("aten._native_batch_norm_legit.no_stats")
def _batch_norm_of_itself(
    w: Writer, x: Buffer, weight: Value, bias: Value, training: bool, momentum: float, eps: float
) -> Result:
    """By statistics of x; each channel's, over all other axes."""
    axes = tuple(axis for axis in range(len(x.shape)) if axis != 1)
    own = w.cast(x, ElementType.FP32)
    mean = reduced(w, "mean", own, axes, True)
    apart = w.binary("subtract", own, mean)
    var = reduced(w, "mean", w.binary("multiply", apart, apart), axes)
    flat = w.reshape(mean, x.shape[1])
    return [_normed(w, x, flat, var, weight, bias, eps), None, None]


for _overload in ("legit.default", "legit_functional.default"):
    HINTS[f"aten._native_batch_norm_{_overload}"] = (
        "It is in training: call .eval() on the module before it is exported."
    )


def _normed(
    w: Writer, x: Buffer, mean: Buffer, var: Buffer, weight: Value, bias: Value, eps: float
) -> Buffer:
    """As one factor and one summand of each channel, which few numbers are made into."""
    shape = (x.shape[1], *(1,) * (len(x.shape) - 2))
    fp32 = ElementType.FP32
    factor = w.unary("rsqrt", w.unary("shift", w.cast(var, fp32), eps))
    if weight is not None:
        factor = w.binary("multiply", factor, w.cast(w.tensor(weight), fp32))
    summand = w.unary("negate", w.binary("multiply", w.cast(mean, fp32), factor))
    if bias is not None:
        summand = w.binary("add", summand, w.cast(w.tensor(bias), fp32))
    own = w.binary("multiply", w.cast(x, fp32), w.reshape(factor, *shape))
    return w.cast(w.binary("add", own, w.reshape(summand, *shape)), x.dtype)
