"""torch's operators that read and write by places, as operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.builders.listing import given
from ridgeline_backends.neuron.export.errors import DynamicShape
from ridgeline_backends.neuron.export.registry import Value, translates
from ridgeline_backends.neuron.export.writer import Number, Writer
from ridgeline_backends.neuron.operations.indexing import ScatterFunction
from ridgeline_backends.neuron.program import Buffer, ElementType

_FUNCTIONS: dict[str | None, ScatterFunction] = {
    None: "set",
    "add": "add",
    "sum": "add",
    "multiply": "multiply",
    "prod": "multiply",
    "amax": "maximum",
    "amin": "minimum",
}


@translates("aten.embedding.default")
def _embedding(
    w: Writer,
    table: Value,
    ids: Value,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Buffer:
    # What the last three say is about gradients.
    rows = w.tensor(table)
    return w.add(ops.Embedding(rows.shape[0]), rows, w.tensor(ids))


@translates("neuron.sharded_embedding.default")
def _sharded_embedding(w: Writer, table: Value, ids: Value, size: int, rows: int) -> Buffer:
    return w.add(ops.Embedding(rows), w.tensor(table), w.tensor(ids), given("rank", 1))


@translates("aten.index_select.default")
def _index_select(w: Writer, x: Value, axis: int, places: Value) -> Buffer:
    whole = w.tensor(x)
    own = w.tensor(places)
    if not own.shape:
        own = w.reshape(own, 1)
    return w.add(ops.Index((w.axis(axis, whole),)), whole, own)


@translates("aten.index.Tensor")
def _index(w: Writer, x: Value, places: Sequence[Value]) -> Buffer:
    whole = w.tensor(x)
    axes, own = _places(w, places)
    return w.add(ops.Index(axes), whole, *own)


def _places(w: Writer, places: Sequence[Value]) -> tuple[tuple[int, ...], list[Buffer]]:
    own = [(axis, _whole(w, one)) for axis, one in enumerate(places) if one is not None]
    return tuple(axis for axis, _ in own), [one for _, one in own]


def _whole(w: Writer, places: Value) -> Buffer:
    found = w.tensor(places)
    if found.dtype is ElementType.BOOL:
        raise DynamicShape(
            "how many numbers a mask selects depends on its values",
            w.line,
            hint="Use torch.where(mask, x, other), which keeps the shape.",
        )
    return found


@translates("aten.index_put.default", "aten._unsafe_index_put.default")
def _index_put(
    w: Writer,
    x: Value,
    places: Sequence[Value],
    values: Value,
    accumulate: bool = False,
    unsafe: bool = False,
) -> Buffer:
    whole, new = w.tensor(x), w.tensor(values)
    mask = places[0]
    if len(places) == 1 and isinstance(mask, Buffer) and mask.dtype is ElementType.BOOL:
        if new.elements != 1:
            _whole(w, mask)
        shape = (*mask.shape, *(1,) * (len(whole.shape) - len(mask.shape)))
        put = w.reshape(new, 1)
        chosen = w.binary("add", whole, put) if accumulate else put
        return w.where(w.reshape(mask, *shape), chosen, whole)
    axes, own = _places(w, places)
    return w.add(ops.IndexWrite(axes, accumulate), whole, new, *own)


@translates("aten.gather.default")
def _gather(w: Writer, x: Value, axis: int, places: Value, *, sparse_grad: bool = False) -> Buffer:
    whole, own = w.tensor(x), w.tensor(places)
    if not whole.shape or not own.shape:
        raise w.refused("a tensor of no axis")
    return w.add(ops.Gather(w.axis(axis, whole)), whole, own)


@translates(
    "aten.scatter.src", "aten.scatter.value", "aten.scatter.reduce", "aten.scatter.value_reduce"
)
def _scatter(
    w: Writer, x: Value, axis: int, places: Value, values: Value, *, reduce: str | None = None
) -> Buffer:
    whole, own = w.tensor(x), w.tensor(places)
    if not whole.shape or not own.shape:
        raise w.refused("a tensor of no axis")
    new = w.as_type(values, whole.dtype)
    if isinstance(values, Number):
        new = w.add(ops.Expand(own.shape), new)
    return w.add(ops.Scatter(w.axis(axis, whole), _FUNCTIONS[reduce]), whole, own, new)


@translates("aten.scatter_add.default")
def _scatter_add(w: Writer, x: Value, axis: int, places: Value, values: Value) -> Buffer:
    return _scatter(w, x, axis, places, values, reduce="add")


@translates("aten.scatter_reduce.two")
def _scatter_reduce(
    w: Writer,
    x: Value,
    axis: int,
    places: Value,
    values: Value,
    reduce: str,
    *,
    include_self: bool = True,
) -> Buffer:
    if reduce not in _FUNCTIONS or not include_self:
        raise w.refused(f"reduce={reduce!r}, include_self={include_self}")
    return _scatter(w, x, axis, places, values, reduce=reduce)


@translates("aten.slice_scatter.default")
def _slice_scatter(
    w: Writer,
    x: Value,
    new: Value,
    axis: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Buffer:
    whole = w.tensor(x)
    place = w.axis(axis, whole)
    chosen = range(*slice(start, end, step).indices(whole.shape[place]))
    values = w.cast(w.tensor(new), whole.dtype)
    if not chosen:
        return whole
    if step > 1:
        turned = w.add(ops.IndexWrite((place,)), whole, values, w.tensor(torch.tensor(chosen)))
        return turned
    parts = [values]
    if chosen.start:
        parts.insert(0, w.add(ops.Slice(place, 0, chosen.start), whole))
    if chosen.stop < whole.shape[place]:
        parts.append(w.add(ops.Slice(place, chosen.stop, whole.shape[place]), whole))
    return w.add(ops.Concat(place), *parts) if len(parts) > 1 else values


@translates("aten.select_scatter.default")
def _select_scatter(w: Writer, x: Value, new: Value, axis: int, index: int) -> Buffer:
    whole = w.tensor(x)
    place = w.axis(axis, whole)
    own = index % whole.shape[place]
    row = w.tensor(new)
    values = w.reshape(row, *row.shape[:place], 1, *row.shape[place:])
    return _slice_scatter(w, whole, values, place, own, own + 1)


@translates("aten.unfold.default")
def _unfold(w: Writer, x: Buffer, axis: int, size: int, step: int) -> Buffer:
    """Windows of an axis, their numbers behind all others."""
    if not x.shape:
        raise w.refused("a tensor of no axis")
    place = w.axis(axis, x)
    begins = torch.arange(0, x.shape[place] - size + 1, step)
    found = w.add(ops.Index((place,)), x, w.tensor(begins[:, None] + torch.arange(size)))
    rest = [one for one in range(len(found.shape)) if one != place + 1]
    return w.add(ops.Transpose((*rest, place + 1)), found)


@translates("aten.one_hot.default")
def _one_hot(w: Writer, ids: Buffer, classes: int = -1) -> Buffer:
    if classes < 0:
        raise DynamicShape("as many classes as the largest id", w.line)
    shape = (*ids.shape, classes)
    nothing = w.tensor(torch.zeros(shape, dtype=torch.int64))
    return _scatter(w, nothing, -1, w.reshape(ids, *ids.shape, 1), 1)
