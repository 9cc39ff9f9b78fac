"""torch's sums, extremes, orders and norms of vectors, as operations."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import Literal

import torch

from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.export.elementwise_operators import arithmetic
from ridgeline_backends.neuron.export.layout_operators import to_dtype
from ridgeline_backends.neuron.export.registry import OPERATORS, Translate, Value, translates
from ridgeline_backends.neuron.export.writer import Writer
from ridgeline_backends.neuron.program import Buffer, ElementType

Axes = int | Sequence[int] | None
Function = Literal["sum", "mean", "max", "min", "product"]


def reduced(w: Writer, function: Function, x: Buffer, axes: Axes, keep: bool = False) -> Buffer:
    """Over all axes where none is given."""
    own = (axes,) if isinstance(axes, int) else tuple(axes or ())
    every = own or tuple(range(len(x.shape)))
    return w.add(ops.Reduce(function, every, keep), x) if x.shape else x


@translates("aten.mean.dim", "aten.mean.default")
def _mean(
    w: Writer,
    x: Buffer,
    axes: Axes = None,
    keep: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Buffer:
    return reduced(w, "mean", w.cast(x, w.dtype), axes, keep)


@translates("aten.sum.dim_IntList", "aten.sum.default")
def _sum(
    w: Writer,
    x: Buffer,
    axes: Axes = None,
    keep: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Buffer:
    return reduced(w, "sum", w.cast(x, w.dtype), axes, keep)


@translates("aten.prod.default", "aten.prod.dim_int")
def _prod(
    w: Writer,
    x: Buffer,
    axis: int | None = None,
    keep: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Buffer:
    return reduced(w, "product", w.cast(x, w.dtype), axis, keep)


def _extreme(function: Function, *, of_bool: bool = False) -> Translate:
    def translate(w: Writer, x: Buffer, axes: Axes = None, keep: bool = False) -> Buffer:
        own = w.cast(x, ElementType.BOOL) if of_bool else x
        if isinstance(axes, Sequence) and not axes and "dims" in w.operator:
            return own  # of no axis: each number by itself
        return reduced(w, function, own, axes, keep)

    return translate


for _name in ("amax.default", "max.default"):
    OPERATORS[f"aten.{_name}"] = _extreme("max")
for _name in ("amin.default", "min.default"):
    OPERATORS[f"aten.{_name}"] = _extreme("min")
for _overload in ("default", "dim", "dims"):
    OPERATORS[f"aten.any.{_overload}"] = _extreme("max", of_bool=True)
    OPERATORS[f"aten.all.{_overload}"] = _extreme("min", of_bool=True)


@translates("aten.argmax.default", "aten.argmin.default")
def _argmax(w: Writer, x: Buffer, axis: int | None = None, keep: bool = False) -> Buffer:
    own = w.unary("negate", x) if "argmin" in w.operator else x
    if axis is None or not x.shape:
        found = w.add(ops.ArgMax(), w.reshape(own, prod(x.shape)))
        return w.reshape(found, *(1,) * len(x.shape)) if keep else found
    found = w.add(ops.ArgMax(), to_last(w, own, axis))
    return _kept(w, found, x, axis) if keep else found


@translates("aten.max.dim", "aten.min.dim")
def _extreme_with_place(w: Writer, x: Buffer, axis: int, keep: bool = False) -> list[Buffer]:
    if not x.shape:
        raise w.refused("a tensor of no axis")
    least = "min" in w.operator
    values = reduced(w, "min" if least else "max", x, axis, keep)
    places = w.add(ops.ArgMax(), to_last(w, w.unary("negate", x) if least else x, axis))
    return [values, _kept(w, places, x, axis) if keep else places]


def _kept(w: Writer, found: Buffer, x: Buffer, axis: int) -> Buffer:
    place = w.axis(axis, x)
    return w.reshape(found, *x.shape[:place], 1, *x.shape[place + 1 :])


def to_last(w: Writer, x: Buffer, axis: int) -> Buffer:
    """With an axis behind all others."""
    last = len(x.shape) - 1
    order = [*(one for one in range(last + 1) if one != w.axis(axis, x)), w.axis(axis, x)]
    return x if order[-1] == last else w.add(ops.Transpose(tuple(order)), x)


def from_last(w: Writer, x: Buffer, axis: int) -> Buffer:
    """Back from `to_last`."""
    order = list(range(len(x.shape) - 1))
    order.insert(w.axis(axis, x), len(x.shape) - 1)
    return x if order == sorted(order) else w.add(ops.Transpose(tuple(order)), x)


@translates("aten.topk.default")
def _topk(
    w: Writer, x: Buffer, k: int, axis: int = -1, largest: bool = True, sorted: bool = True
) -> list[Buffer]:
    # What need not be in order may be.
    found = w.add_all(ops.TopK(k, largest), (to_last(w, x, axis),), 2)
    return [from_last(w, one, axis) for one in found]


@translates("aten.sort.default")
def _sort(w: Writer, x: Buffer, axis: int = -1, descending: bool = False) -> list[Buffer]:
    found = w.add_all(ops.Sort(descending), (to_last(w, x, axis),), 2)
    return [from_last(w, one, axis) for one in found]


@translates("aten.sort.stable")
def _stable_sort(
    w: Writer, x: Buffer, *, stable: bool | None, dim: int = -1, descending: bool = False
) -> list[Buffer]:
    return _sort(w, x, dim, descending)


@translates("aten.cumsum.default", "aten.cumprod.default")
def _scan(w: Writer, x: Buffer, axis: int, *, dtype: torch.dtype | None = None) -> Buffer:
    own = w.cast(x, w.dtype)
    return w.add(ops.Scan("product" if "cumprod" in w.operator else "sum", axis), own)


@translates("aten.var.correction", "aten.var_mean.correction")
def _var(
    w: Writer,
    x: Buffer,
    axes: Axes = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> Buffer | list[Buffer]:
    own = tuple(axes) if isinstance(axes, Sequence) and axes else tuple(range(len(x.shape)))
    mean = reduced(w, "mean", x, own, True)
    apart = w.binary("subtract", x, mean)
    total = reduced(w, "sum", w.binary("multiply", apart, apart), own, keepdim)
    count = prod(x.shape[axis] for axis in own) - (1 if correction is None else correction)
    found = arithmetic(w, "divide", total, float(max(count, 0)), x.dtype)
    if "var_mean" not in w.operator:
        return found
    return [found, mean if keepdim else w.reshape(mean, *found.shape)]


@translates("aten.linalg_vector_norm.default")
def _vector_norm(
    w: Writer,
    x: Buffer,
    order: float = 2,
    axes: Axes = None,
    keep: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Buffer:
    own = x if dtype is None else to_dtype(w, x, dtype)
    return vector_norm(w, own, float(order), axes, keep)


def vector_norm(w: Writer, x: Buffer, order: float, axes: Axes, keep: bool = False) -> Buffer:
    if order == 0:
        other = w.binary("not_equal", x, w.scalar(0.0, x.dtype))
        return reduced(w, "sum", w.cast(other, x.dtype), axes, keep)
    if order == 2:
        return w.unary("sqrt", reduced(w, "sum", w.binary("multiply", x, x), axes, keep))
    size = w.unary("absolute", x)
    if order in (inf, -inf):
        return reduced(w, "max" if order > 0 else "min", size, axes, keep)
    if order == 1:
        return reduced(w, "sum", size, axes, keep)
    total = reduced(w, "sum", w.unary("power", size, order), axes, keep)
    return w.unary("power", total, 1 / order)


@translates("aten.dist.default")
def _distance(w: Writer, left: Buffer, right: Buffer, order: float = 2) -> Buffer:
    return vector_norm(w, w.binary("subtract", left, right), float(order), None)


@translates("aten._cdist_forward.default")
def _distances(w: Writer, left: Buffer, right: Buffer, order: float, mode: int | None) -> Buffer:
    # Modes differ in how it is computed alone.
    a = w.reshape(left, *left.shape[:-1], 1, left.shape[-1])
    b = w.reshape(right, *right.shape[:-2], 1, *right.shape[-2:])
    return vector_norm(w, w.binary("subtract", a, b), float(order), -1)


@translates("aten.softmax.int", "aten._softmax.default", "aten._log_softmax.default")
def _softmax(w: Writer, x: Buffer, axis: int, dtype: Value = None) -> Buffer:
    # The third argument of those that begin with _ is half_to_float: both ask for a type.
    own = w.cast(x, w.dtype)
    if "log" not in w.operator:
        return w.add(ops.Softmax(axis), own) if own.shape else w.unary("exp", _less(w, own, own))
    apart = _less(w, own, reduced(w, "max", own, axis, True))
    total = reduced(w, "sum", w.unary("exp", apart), axis, True)
    return _less(w, apart, w.unary("log", total))


def _less(w: Writer, left: Buffer, right: Buffer) -> Buffer:
    return w.binary("subtract", left, right)
