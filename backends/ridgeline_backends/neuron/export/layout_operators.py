"""torch's operators that give the same numbers in another order or type, as operations."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.execute.rounding import element_type
from ridgeline_backends.neuron.export.registry import Result, Value, translates
from ridgeline_backends.neuron.export.writer import Writer
from ridgeline_backends.neuron.program import Buffer


@translates("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default")
def _reshape(w: Writer, x: Buffer, shape: Sequence[int]) -> Buffer:
    return w.add(ops.Reshape(tuple(_filled(shape, prod(x.shape)))), x)


def _filled(sizes: Sequence[int], whole: int) -> list[int]:
    known = prod(size for size in sizes if size != -1)
    return [whole // known if size == -1 else size for size in sizes]


@translates("aten.unflatten.int")
def _unflatten(w: Writer, x: Buffer, axis: int, sizes: Sequence[int]) -> Buffer:
    place = w.axis(axis, x)
    own = _filled(sizes, x.shape[place])
    return w.add(ops.Reshape((*x.shape[:place], *own, *x.shape[place + 1 :])), x)


@translates("aten.flatten.using_ints")
def _flatten(w: Writer, x: Buffer, start: int = 0, end: int = -1) -> Buffer:
    first, last = w.axis(start, x), w.axis(end, x)
    whole = prod(x.shape[first : last + 1])
    return w.add(ops.Reshape((*x.shape[:first], whole, *x.shape[last + 1 :])), x)


@translates("aten.unsqueeze.default")
def _unsqueeze(w: Writer, x: Buffer, axis: int) -> Buffer:
    place = axis % (len(x.shape) + 1)
    return w.add(ops.Reshape((*x.shape[:place], 1, *x.shape[place:])), x)


@translates("aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze.default")
def _squeeze(w: Writer, x: Buffer, axes: int | Sequence[int] | None = None) -> Buffer:
    own = (axes,) if isinstance(axes, int) else range(len(x.shape)) if axes is None else axes
    gone = {w.axis(axis, x) for axis in own}
    shape = (size for axis, size in enumerate(x.shape) if size != 1 or axis not in gone)
    return w.add(ops.Reshape(tuple(shape)), x)


@translates("aten.transpose.int")
def _transpose(w: Writer, x: Buffer, first: int, second: int) -> Buffer:
    order = list(range(len(x.shape)))
    if order:
        order[first], order[second] = order[second], order[first]
    return w.add(ops.Transpose(tuple(order)), x)


@translates("aten.permute.default")
def _permute(w: Writer, x: Buffer, order: Sequence[int]) -> Buffer:
    return w.add(ops.Transpose(tuple(w.axis(axis, x) for axis in order)), x)


@translates("aten.t.default", "aten.numpy_T.default")
def _t(w: Writer, x: Buffer) -> Buffer:
    return w.add(ops.Transpose(tuple(reversed(range(len(x.shape))))), x)


@translates("aten.expand.default")
def _expand(w: Writer, x: Buffer, shape: Sequence[int], *, implicit: bool = False) -> Buffer:
    own = (1,) * (len(shape) - len(x.shape)) + x.shape
    filled = tuple(a if b == -1 else b for a, b in zip(own, shape, strict=True))
    return w.add(ops.Expand(filled), x)


@translates("aten.repeat.default")
def _repeat(w: Writer, x: Buffer, times: Sequence[int]) -> Buffer:
    found = w.reshape(x, *(1,) * (len(times) - len(x.shape)), *x.shape)
    if 0 in times:
        raise w.refused("no times")
    for axis, count in enumerate(times):
        if count > 1:
            found = w.add(ops.Concat(axis), *[found] * count)
    return found


@translates("aten.flip.default")
def _flip(w: Writer, x: Buffer, axes: Sequence[int]) -> Buffer:
    for axis in sorted({w.axis(axis, x) for axis in axes}):
        if x.shape:
            places = w.tensor(torch.arange(x.shape[axis] - 1, -1, -1))
            x = w.add(ops.Index((axis,)), x, places)
    return x


@translates("aten.chunk.default")
def _chunk(w: Writer, x: Buffer, count: int, axis: int = 0) -> list[Buffer]:
    return _split_sizes(w, x, max(1, -(-x.shape[axis] // count)), axis)


@translates("aten.split.Tensor", "aten.split.sizes", "aten.split_with_sizes.default")
def _split_sizes(w: Writer, x: Buffer, sizes: int | Sequence[int], axis: int = 0) -> list[Buffer]:
    whole = x.shape[axis]
    if isinstance(sizes, int):
        sizes = [min(sizes, whole - start) for start in range(0, whole, sizes)]
    return w.add_all(ops.Split(tuple(sizes), axis), (x,), len(sizes))


@translates("aten.unbind.int")
def _unbind(w: Writer, x: Buffer, axis: int = 0) -> list[Buffer]:
    return [_select(w, x, axis, place) for place in range(x.shape[axis])]


@translates("aten.slice.Tensor")
def _slice(
    w: Writer,
    x: Buffer,
    axis: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Buffer:
    first, last, _ = slice(start, end).indices(x.shape[axis])
    return w.add(ops.Slice(axis, first, max(first, last), step), x)


@translates("aten.select.int")
def _select(w: Writer, x: Buffer, axis: int, index: int) -> Buffer:
    place = w.axis(axis, x)
    own = index % x.shape[place]
    row = w.add(ops.Slice(place, own, own + 1), x)
    return w.add(ops.Reshape((*x.shape[:place], *x.shape[place + 1 :])), row)


@translates("aten.diagonal.default")
def _diagonal(w: Writer, x: Buffer, offset: int = 0, first: int = 0, second: int = 1) -> Buffer:
    a, b = w.axis(first, x), w.axis(second, x)
    rest = [axis for axis in range(len(x.shape)) if axis not in (a, b)]
    rows, columns = x.shape[a], x.shape[b]
    lead = tuple(x.shape[axis] for axis in rest)
    flat = w.reshape(w.add(ops.Transpose((*rest, a, b)), x), *lead, rows * columns)
    start = offset if offset >= 0 else -offset * columns
    size = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    stop = start + (size - 1) * (columns + 1) + 1 if size else start
    return w.add(ops.Slice(len(lead), start, stop, columns + 1), flat)


@translates("aten.cat.default")
def _cat(w: Writer, parts: Sequence[Value], axis: int = 0) -> Buffer:
    own = [w.cast(w.tensor(part), w.dtype) for part in parts]
    # torch leaves out an empty vector, whatever the others are.
    kept = [one for one in own if one.shape != (0,)] or own[:1]
    return w.add(ops.Concat(axis), *kept)


@translates("aten.stack.default")
def _stack(w: Writer, parts: Sequence[Value], axis: int = 0) -> Buffer:
    own = [_unsqueeze(w, w.cast(w.tensor(part), w.dtype), axis) for part in parts]
    return w.add(ops.Concat(axis % len(own[0].shape)), *own)


@translates("aten.constant_pad_nd.default")
def _pad(w: Writer, x: Buffer, sizes: Sequence[int], value: float = 0) -> Buffer:
    """`sizes` are of the last axis first; negative ones cut."""
    return padded(w, x, pairs(sizes, len(x.shape)), value)


def pairs(sizes: Sequence[int], rank: int) -> list[tuple[int, int]]:
    """torch's sizes of padding, axis by axis from the front."""
    behind = [(sizes[place], sizes[place + 1]) for place in range(0, len(sizes), 2)][::-1]
    return [(0, 0)] * (rank - len(behind)) + behind


def padded(w: Writer, x: Buffer, sizes: Sequence[tuple[int, int]], value: float) -> Buffer:
    for axis, (before, behind) in enumerate(sizes):
        if min(before, behind) < 0:
            last = x.shape[axis] + min(behind, 0)
            x = w.add(ops.Slice(axis, max(-before, 0), last), x)
    grown = tuple((max(before, 0), max(behind, 0)) for before, behind in sizes)
    if not any(map(any, grown)):
        return x
    return w.add(ops.Pad(grown, float(value)), x)


@translates("aten.dropout.default", "aten.native_dropout.default", "aten.feature_dropout.default")
def _dropout(w: Writer, x: Buffer, share: float, train: bool | None) -> Result:
    if train and share:
        raise w.refused(
            "training=True",
            hint="Call .eval() on the module, or pass training=False: a program is for inference.",
        )
    return [x, None] if "native" in w.operator else x


@translates(
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.alias.default",
    "aten.lift_fresh_copy.default",
)
def _same(w: Writer, x: Buffer) -> Buffer:
    return x


@translates("aten.clone.default")
def _clone(w: Writer, x: Buffer) -> Buffer:
    return x


@translates("aten.copy.default")
def _copy(w: Writer, x: Buffer, source: Value, non_blocking: bool = False) -> Buffer:
    found = w.cast(w.tensor(source), x.dtype)
    return found if found.shape == x.shape else w.add(ops.Expand(x.shape), found)


@translates("aten.fill.Scalar", "aten.full_like.default")
def _full_like(w: Writer, x: Buffer, value: float, *, dtype: torch.dtype | None = None) -> Tensor:
    return torch.full(x.shape, value, dtype=w.dtypes[0])


@translates("aten.fill.Tensor")
def _filled_with(w: Writer, x: Buffer, value: Value) -> Buffer:
    return w.add(ops.Expand(x.shape), w.as_type(value, x.dtype))


@translates("aten.to.dtype")
def to_dtype(
    w: Writer,
    x: Buffer,
    dtype: torch.dtype | None = None,
    non_blocking: bool = False,
    copy: bool = False,
) -> Buffer:
    if dtype is None:
        return x
    found = element_type(dtype)
    if found is None:
        raise w.refused(f"numbers of type {dtype}")
    return x if found is x.dtype else w.add(ops.Cast(found), x)


@translates("aten._to_copy.default", "aten.to.dtype_layout")
def _to_copy(w: Writer, x: Buffer, *, dtype: torch.dtype | None = None) -> Buffer:
    return to_dtype(w, x, dtype)
