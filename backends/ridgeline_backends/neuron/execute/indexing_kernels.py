"""What reading and writing by place, scans, order, padding and keeping compute, by torch.

A place that is not there raises `PlaceOutOfRange`: on hardware it would read or write what belongs
to something else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.errors import BackendError
from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.execute.call import Call
from ridgeline_backends.neuron.execute.registry import computes


class PlaceOutOfRange(BackendError):
    """A number that says which row or place, and there is none such."""

    code = "PlaceOutOfRange"
    http_status = 400

    def __init__(self, place: int, first: int, last: int, what: str) -> None:
        super().__init__(
            f"Index {place} is out of range: {what} takes {first} to {last}.",
            hint="Check the ids or indices that were passed: torch raises an IndexError here.",
        )
        self.place = place


def within(places: Tensor, size: int, what: str, *, wraps: bool = False) -> Tensor:
    """The places, as int64. Raises `PlaceOutOfRange`."""
    if places.numel():
        first = -size if wraps else 0
        low, high = (int(one) for one in torch.aminmax(places))
        if low < first or high >= size:
            raise PlaceOutOfRange(low if low < first else high, first, size - 1, what)
    return places.long()


@computes(ops.Gather)
def _gather(kind: ops.Gather, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, places = inputs
    return torch.gather(x, kind.axis, within(places, x.shape[kind.axis], "gather"))


_SCATTERED = {"add": "sum", "multiply": "prod", "maximum": "amax", "minimum": "amin"}


@computes(ops.Scatter)
def _scatter(kind: ops.Scatter, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, places, values = inputs
    own = within(places, x.shape[kind.axis], "scatter")
    values = values.to(x.dtype)
    if kind.function == "set":
        return x.scatter(kind.axis, own, values)
    return x.scatter_reduce(kind.axis, own, values, _SCATTERED[kind.function])


@computes(ops.Index)
def _index(kind: ops.Index, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, *places = inputs
    return x[_along(kind.axes, x, places)]


@computes(ops.IndexWrite)
def _index_write(kind: ops.IndexWrite, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x, values, *places = inputs
    own = _along(kind.axes, x, places)
    found = x.clone()
    if not kind.add:
        found[own] = values.to(x.dtype)
        return found
    whole = tuple(
        one if isinstance(one, Tensor) else torch.arange(x.shape[axis])
        for axis, one in enumerate(own)
    )
    if all(isinstance(one, Tensor) for one in own):
        return found.index_put_(whole, values.to(x.dtype), accumulate=True)
    # As a sum over rows: axes that are not indexed lie behind.
    order = [*kind.axes, *(axis for axis in range(x.dim()) if axis not in kind.axes)]
    shape = x[own].shape
    stretched = values.to(x.dtype).expand(shape)
    lead = kind.axes[0] if kind.axes[-1] - kind.axes[0] == len(kind.axes) - 1 else 0
    indices = tuple(one for one in own if isinstance(one, Tensor))
    depth = max(one.dim() for one in indices)
    behind = [*range(lead, lead + depth)]
    rest = [axis for axis in range(len(shape)) if axis not in behind]
    turned = found.permute(order)
    return (
        turned.contiguous()
        .index_put_(indices, stretched.permute([*behind, *rest]), accumulate=True)
        .permute([order.index(axis) for axis in range(x.dim())])
    )


def _along(axes: Sequence[int], x: Tensor, places: Sequence[Tensor]) -> tuple[Tensor | slice, ...]:
    own: list[Tensor | slice] = [slice(None)] * x.dim()
    for axis, one in zip(axes, places, strict=True):
        own[axis] = within(one, x.shape[axis], f"axis {axis}", wraps=True)
    return tuple(own)


@computes(ops.Scan)
def _scan(kind: ops.Scan, inputs: Sequence[Tensor], call: Call) -> Tensor:
    x = inputs[0]
    return x.cumsum(kind.axis) if kind.function == "sum" else x.cumprod(kind.axis)


@computes(ops.Sort)
def _sort(kind: ops.Sort, inputs: Sequence[Tensor], call: Call) -> tuple[Tensor, ...]:
    values, places = inputs[0].sort(dim=-1, descending=kind.descending, stable=True)
    return values, places


@computes(ops.Pad)
def _pad(kind: ops.Pad, inputs: Sequence[Tensor], call: Call) -> Tensor:
    sizes = [size for pair in reversed(kind.sizes) for size in pair]
    value = kind.value if inputs[0].is_floating_point() else int(kind.value)
    return F.pad(inputs[0], sizes, value=value)


@computes(ops.Store)
def _store(kind: ops.Store, inputs: Sequence[Tensor], call: Call) -> Tensor:
    # One tensor for all cores stretches over those of each.
    return inputs[0].copy_(inputs[1])
