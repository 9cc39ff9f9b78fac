"""torch's operators that give the same numbers in another order or type, as operations."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.execute.rounding import element_type
from ridgeline_backends.neuron.export.registry import Value, translates
from ridgeline_backends.neuron.export.writer import Writer
from ridgeline_backends.neuron.program import Buffer


@translates(
    "aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.unflatten.int"
)
def _reshape(w: Writer, x: Buffer, shape: Sequence[int], *rest: Sequence[int]) -> Buffer:
    sizes = list(shape) if not isinstance(shape, int) else _unflattened(x, shape, rest[0])
    if -1 in sizes:
        known = prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = prod(x.shape) // known
    return w.add(ops.Reshape(tuple(sizes)), x)


def _unflattened(x: Buffer, axis: int, sizes: Sequence[int]) -> list[int]:
    place = axis % len(x.shape)
    known = prod(size for size in sizes if size != -1)
    filled = [x.shape[place] // known if size == -1 else size for size in sizes]
    return [*x.shape[:place], *filled, *x.shape[place + 1 :]]


@translates("aten.flatten.using_ints")
def _flatten(w: Writer, x: Buffer, start: int = 0, end: int = -1) -> Buffer:
    first, last = start % len(x.shape), end % len(x.shape)
    whole = prod(x.shape[first : last + 1])
    return w.add(ops.Reshape((*x.shape[:first], whole, *x.shape[last + 1 :])), x)


@translates("aten.unsqueeze.default")
def _unsqueeze(w: Writer, x: Buffer, axis: int) -> Buffer:
    place = axis % (len(x.shape) + 1)
    return w.add(ops.Reshape((*x.shape[:place], 1, *x.shape[place:])), x)


@translates("aten.squeeze.dim")
def _squeeze(w: Writer, x: Buffer, axis: int) -> Buffer:
    place = axis % len(x.shape)
    shape = x.shape[:place] + x.shape[place + 1 :] if x.shape[place] == 1 else x.shape
    return w.add(ops.Reshape(shape), x)


@translates("aten.transpose.int")
def _transpose(w: Writer, x: Buffer, first: int, second: int) -> Buffer:
    order = list(range(len(x.shape)))
    order[first], order[second] = order[second], order[first]
    return w.add(ops.Transpose(tuple(order)), x)


@translates("aten.permute.default")
def _permute(w: Writer, x: Buffer, order: Sequence[int]) -> Buffer:
    return w.add(ops.Transpose(tuple(axis % len(x.shape) for axis in order)), x)


@translates("aten.t.default", "aten.numpy_T.default")
def _t(w: Writer, x: Buffer) -> Buffer:
    return w.add(ops.Transpose(tuple(reversed(range(len(x.shape))))), x)


@translates("aten.expand.default")
def _expand(w: Writer, x: Buffer, shape: Sequence[int], implicit: bool = False) -> Buffer:
    own = (1,) * (len(shape) - len(x.shape)) + x.shape
    filled = tuple(a if b == -1 else b for a, b in zip(own, shape, strict=True))
    return w.add(ops.Expand(filled), x)


@translates("aten.chunk.default")
def _chunk(w: Writer, x: Buffer, count: int, axis: int = 0) -> list[Buffer]:
    size = -(-x.shape[axis] // count)
    return _split_sizes(w, x, size, axis)


@translates("aten.split.Tensor", "aten.split.sizes", "aten.split_with_sizes.default")
def _split_sizes(w: Writer, x: Buffer, sizes: int | Sequence[int], axis: int = 0) -> list[Buffer]:
    whole = x.shape[axis]
    if isinstance(sizes, int):
        sizes = [min(sizes, whole - start) for start in range(0, whole, sizes)]
    return w.add_all(ops.Split(tuple(sizes), axis), (x,), len(sizes))


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
    return w.add(ops.Slice(axis, first, last, step), x)


@translates("aten.select.int")
def _select(w: Writer, x: Buffer, axis: int, index: int) -> Buffer:
    place, own = axis % len(x.shape), index % x.shape[axis]
    row = w.add(ops.Slice(place, own, own + 1), x)
    return w.add(ops.Reshape((*x.shape[:place], *x.shape[place + 1 :])), row)


@translates("aten.cat.default")
def _cat(w: Writer, parts: Sequence[Value], axis: int = 0) -> Buffer:
    return w.add(ops.Concat(axis), *(w.tensor(part) for part in parts))


@translates(
    "aten.dropout.default",
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.detach_.default",
    "aten.alias.default",
    "aten.lift_fresh_copy.default",
)
def _same(w: Writer, x: Buffer, *_: object, **__: object) -> Buffer:
    return x


@translates("aten.to.dtype", "aten._to_copy.default", "aten.to.dtype_layout")
def to_dtype(
    w: Writer, x: Buffer, dtype: torch.dtype | None = None, *_: object, **__: object
) -> Buffer:
    if dtype is None:
        return x
    found = element_type(dtype)
    if found is None:
        raise w.refused(f"numbers of type {dtype}")
    return x if found is x.dtype else w.add(ops.Cast(found), x)
