"""torch's operators as operations: one translator each.

A translator gets the node's arguments, buffers in the place of tensors, and gives a buffer or a
list of them. What an operator could be asked for and no operation does is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.export.layout_operators import to_dtype
from ridgeline_backends.neuron.export.registry import OPERATORS, Translate, Value, translates
from ridgeline_backends.neuron.export.writer import Writer
from ridgeline_backends.neuron.operations.elementwise import BinaryFunction, UnaryFunction
from ridgeline_backends.neuron.program import Buffer, BufferKind

__all__ = ["OPERATORS"]

Number = (int, float)
_HIDDEN = -1e30


def _unary(name: str, function: UnaryFunction) -> None:
    OPERATORS[name] = lambda w, x: w.add(ops.Unary(function), x)


for _name, _function in {
    "aten.relu.default": "relu",
    "aten.silu.default": "silu",
    "aten.sigmoid.default": "sigmoid",
    "aten.tanh.default": "tanh",
    "aten.exp.default": "exp",
    "aten.log.default": "log",
    "aten.sqrt.default": "sqrt",
    "aten.rsqrt.default": "rsqrt",
    "aten.reciprocal.default": "reciprocal",
    "aten.neg.default": "negate",
    "aten.abs.default": "absolute",
    "aten.sin.default": "sin",
    "aten.cos.default": "cos",
}.items():
    _unary(_name, _function)  # type: ignore[arg-type]


@translates("aten.gelu.default")
def _gelu(w: Writer, x: Buffer, approximate: str = "none") -> Buffer:
    return w.add(ops.Unary("gelu" if approximate == "none" else "gelu_tanh"), x)


@translates("aten.pow.Tensor_Scalar")
def _power(w: Writer, x: Buffer, exponent: float) -> Buffer:
    return w.add(ops.Unary("power", float(exponent)), x)


def _binary(function: BinaryFunction) -> Translate:
    def translate(w: Writer, left: Value, right: Value, alpha: float = 1) -> Buffer:
        if alpha != 1:
            raise w.refused(f"alpha={alpha}")
        if isinstance(right, Number) and isinstance(left, Buffer):
            return _by_number(w, function, left, float(right))
        if isinstance(left, Number) and isinstance(right, Buffer):
            left = w.scalar(float(left), right.dtype)
        return w.add(ops.Binary(function), w.tensor(left), w.tensor(right))

    return translate


def _by_number(w: Writer, function: BinaryFunction, x: Buffer, number: float) -> Buffer:
    if x.dtype.floating:
        if function == "multiply":
            return w.add(ops.Unary("scale", number), x)
        if function == "divide" and number:
            return w.add(ops.Unary("scale", 1 / number), x)
        if function in ("add", "subtract"):
            return w.add(ops.Unary("shift", number if function == "add" else -number), x)
    return w.add(ops.Binary(function), x, w.scalar(number, x.dtype))


for _place, _kind in {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
    "maximum": "maximum",
    "minimum": "minimum",
}.items():
    for _overload in ("Tensor", "Scalar", "default"):
        OPERATORS[f"aten.{_place}.{_overload}"] = _binary(_kind)  # type: ignore[arg-type]
    OPERATORS[f"aten.{_place}_.Tensor"] = _binary(_kind)  # type: ignore[arg-type]


@translates("aten.rsub.Scalar")
def _subtracted_from(w: Writer, x: Buffer, number: float, alpha: float = 1) -> Buffer:
    return w.add(ops.Unary("shift", float(number)), w.add(ops.Unary("scale", -float(alpha)), x))


@translates("aten.where.self")
def _where(w: Writer, condition: Value, yes: Value, no: Value) -> Buffer:
    return w.add(ops.Binary("where"), w.tensor(condition), w.tensor(yes), w.tensor(no))


@translates("aten.masked_fill.Scalar")
def _masked_fill(w: Writer, x: Buffer, mask: Value, value: float) -> Buffer:
    # Finite, so that a row of nothing else stays a row of numbers.
    filled = w.scalar(max(float(value), _HIDDEN), x.dtype)
    return w.add(ops.Binary("where"), w.tensor(mask), filled, x)


@translates("aten.linear.default")
def _linear(w: Writer, x: Buffer, weight: Value, bias: Value = None) -> Buffer:
    matrix = w.tensor(weight)
    vectors = () if bias is None else (w.tensor(bias),)
    if matrix.kind is BufferKind.WEIGHT:
        return w.add(ops.Matmul(biased=bias is not None), x, matrix, *vectors)
    out = w.add(ops.BatchMatmul(), x, w.add(ops.Transpose((1, 0)), matrix))
    return w.add(ops.Binary("add"), out, *vectors) if vectors else out


@translates("aten.matmul.default", "aten.bmm.default", "aten.mm.default")
def _matmul(w: Writer, left: Value, right: Value) -> Buffer:
    a, b = w.tensor(left), w.tensor(right)
    if min(len(a.shape), len(b.shape)) < 2:
        raise w.refused("a vector")
    return w.add(ops.BatchMatmul(), a, b)


@translates("aten.softmax.int", "aten._softmax.default")
def _softmax(w: Writer, x: Buffer, axis: int, dtype: torch.dtype | None = None) -> Buffer:
    made = w.add(ops.Softmax(axis), x)
    return made if dtype is None else to_dtype(w, made, dtype)


@translates("aten.layer_norm.default")
def _layer_norm(
    w: Writer,
    x: Buffer,
    shape: Sequence[int],
    weight: Value = None,
    bias: Value = None,
    eps: float = 1e-5,
    cudnn: bool = False,
) -> Buffer:
    if len(shape) != 1:
        raise w.refused(f"norms over {len(shape)} axes")
    if weight is None and bias is not None:
        raise w.refused("a bias and no weight")
    vectors = tuple(w.tensor(one) for one in (weight, bias) if one is not None)
    return w.add(ops.LayerNorm(eps), x, *vectors)


@translates("aten.rms_norm.default")
def _rms_norm(
    w: Writer, x: Buffer, shape: Sequence[int], weight: Value = None, eps: float | None = None
) -> Buffer:
    if len(shape) != 1:
        raise w.refused(f"norms over {len(shape)} axes")
    found = w.tensor(torch.ones(shape[0]) if weight is None else weight)
    return w.add(ops.RMSNorm(torch.finfo(torch.float32).eps if eps is None else eps), x, found)


@translates("aten.group_norm.default")
def _group_norm(
    w: Writer,
    x: Buffer,
    groups: int,
    weight: Value = None,
    bias: Value = None,
    eps: float = 1e-5,
    cudnn: bool = False,
) -> Buffer:
    vectors = tuple(w.tensor(one) for one in (weight, bias) if one is not None)
    return w.add(ops.GroupNorm(groups, eps), x, *vectors)


@translates("aten.embedding.default")
def _embedding(w: Writer, table: Value, ids: Value, *_: object) -> Buffer:
    return w.add(ops.Embedding(), w.tensor(table), w.tensor(ids))


@translates("aten.scaled_dot_product_attention.default")
def _attention(
    w: Writer,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    mask: Value = None,
    dropout: float = 0.0,
    causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Buffer:
    if dropout:
        raise w.refused("dropout")
    if causal and q.shape[2] != k.shape[2]:
        raise w.refused("is_causal between lengths that differ")
    order = ops.Transpose((0, 2, 1, 3))
    parts = [w.add(order, one) for one in (q, k, v)]
    if mask is not None:
        parts.append(_bias(w, mask, q, k))
    kind = ops.Attention(
        scale=q.shape[-1] ** -0.5 if scale is None else scale,
        causal=causal,
        biased=mask is not None,
        kernel="flash",
    )
    return w.add(order, w.add(kind, *parts))


def _bias(w: Writer, mask: Value, q: Buffer, k: Buffer) -> Buffer:
    """What is added to scores, with four axes."""
    found = w.tensor(mask)
    if not found.dtype.floating:
        zero, hidden = (w.tensor(torch.tensor([one])) for one in (0.0, _HIDDEN))
        found = w.add(ops.Binary("where"), found, zero, hidden)
    shape = (1,) * (4 - len(found.shape)) + found.shape
    return w.add(ops.Reshape(shape), found)


@translates("aten.mean.dim", "aten.mean.default")
def _mean(w: Writer, x: Buffer, axes: Sequence[int] = (), keep: bool = False) -> Buffer:
    return w.add(ops.Reduce("mean", tuple(axes) or tuple(range(len(x.shape))), keep), x)


@translates("aten.sum.dim_IntList")
def _sum(w: Writer, x: Buffer, axes: Sequence[int] = (), keep: bool = False) -> Buffer:
    return w.add(ops.Reduce("sum", tuple(axes) or tuple(range(len(x.shape))), keep), x)


@translates("aten.amax.default")
def _amax(w: Writer, x: Buffer, axes: Sequence[int] = (), keep: bool = False) -> Buffer:
    return w.add(ops.Reduce("max", tuple(axes) or tuple(range(len(x.shape))), keep), x)


@translates("aten.argmax.default")
def _argmax(w: Writer, x: Buffer, axis: int | None = None, keep: bool = False) -> Buffer:
    if axis is None or axis % len(x.shape) != len(x.shape) - 1 or keep:
        raise w.refused("an axis other than the last")
    return w.add(ops.ArgMax(), x)


@translates("aten.topk.default")
def _topk(w: Writer, x: Buffer, k: int, axis: int = -1, *_: object) -> list[Buffer]:
    if axis % len(x.shape) != len(x.shape) - 1:
        raise w.refused("an axis other than the last")
    return w.add_all(ops.TopK(k), (x,), 2)


@translates("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default")
def _convolution(
    w: Writer,
    x: Buffer,
    weight: Value,
    bias: Value = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Buffer:
    axes = len(x.shape) - 2
    if set(dilation) != {1}:
        raise w.refused("dilation")
    kind = ops.Convolution(_each(stride, axes), _each(padding, axes), groups)
    vectors = () if bias is None else (w.tensor(bias),)
    return w.add(kind, x, w.tensor(weight), *vectors)


@translates("aten.max_pool1d.default", "aten.max_pool2d.default")
def _max_pool(
    w: Writer,
    x: Buffer,
    window: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil: bool = False,
) -> Buffer:
    if ceil or set(dilation) != {1}:
        raise w.refused("dilation or ceil_mode")
    axes = len(x.shape) - 2
    own = _each(window, axes)
    return w.add(ops.Pool("max", own, _each(stride or own, axes), _each(padding, axes)), x)


def _each(sizes: Sequence[int], axes: int) -> tuple[int, ...]:
    return tuple(sizes) if len(sizes) == axes else tuple(sizes) * axes


@translates("neuron.all_reduce.default")
def _all_reduce(w: Writer, x: Buffer, size: int) -> Buffer:
    return w.add(ops.AllReduce(ops.Group(size)), x)


@translates("neuron.all_gather.default")
def _all_gather(w: Writer, x: Buffer, axis: int, size: int) -> Buffer:
    return w.add(ops.AllGather(ops.Group(size), axis), x)


@translates("neuron.own_part.default")
def _own_part(w: Writer, x: Buffer, axis: int, size: int) -> Buffer:
    return w.add(ops.OwnPart(ops.Group(size), axis), x)


@translates("neuron.rope.default")
def _rope(w: Writer, x: Buffer, positions: Value, cos: Value, sin: Value) -> Buffer:
    return w.add(ops.Rope(), x, *(w.tensor(one) for one in (positions, cos, sin)))
