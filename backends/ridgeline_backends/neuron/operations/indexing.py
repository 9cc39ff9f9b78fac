"""Numbers by their places: read, written, put in order, summed up one after the other, kept.

Places are int32. One that is not there is an error at execution, as in torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ridgeline_backends.neuron.operations.checks import axis_of, broadcast, require, take
from ridgeline_backends.neuron.program import ElementType, Form, OperationKind

ScatterFunction = Literal["set", "add", "multiply", "maximum", "minimum"]
ScanFunction = Literal["sum", "product"]


@dataclass(frozen=True, slots=True)
class Gather(OperationKind):
    """x and places of as many axes -> the shape of the places: along `axis` each number is the one
    of x at that place, along the other axes at its own."""

    name: ClassVar[str] = "gather"
    axis: int

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        x, places = take(inputs, self.name, 2)
        _fits(self.name, self.axis, inputs)
        return (replace(x, shape=places.shape),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0

    def read_bytes(self, inputs: Sequence[Form]) -> tuple[int, ...]:
        x, places = inputs
        return places.elements * x.dtype.bytes, places.bytes


@dataclass(frozen=True, slots=True)
class Scatter(OperationKind):
    """x, places and values of as many axes -> x with the values at their places along `axis`, or
    made of both by `function`."""

    name: ClassVar[str] = "scatter"
    axis: int
    function: ScatterFunction = "set"

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        x, places, values = take(inputs, self.name, 3)
        _fits(self.name, self.axis, inputs)
        inside = len(values.shape) == len(places.shape) and all(
            a <= b for a, b in zip(places.shape, values.shape, strict=True)
        )
        require(inside and values.dtype is x.dtype, self.name, "has a value of each", inputs)
        return (x,)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0 if self.function == "set" else inputs[1].elements


def _fits(name: str, axis: int, inputs: Sequence[Form]) -> None:
    x, places = inputs[:2]
    own = axis_of(axis, len(x.shape), name, inputs)
    fitting = len(x.shape) == len(places.shape) and all(
        a <= b
        for place, (a, b) in enumerate(zip(places.shape, x.shape, strict=True))
        if place != own
    )
    require(fitting, name, "has places within the other axes", inputs)
    require(places.dtype is ElementType.INT32, name, "places by int32", inputs)


@dataclass(frozen=True, slots=True)
class Index(OperationKind):
    """x and places for each of `axes`, which stretch to one shape: that shape stands where the axes
    were if they lie together, else in front. A negative place counts from the end."""

    name: ClassVar[str] = "index"
    axes: tuple[int, ...]

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        x, *places = take(inputs, self.name, 1 + len(self.axes))
        return (replace(x, shape=_indexed(self.name, x, self.axes, places, inputs)),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0

    def read_bytes(self, inputs: Sequence[Form]) -> tuple[int, ...]:
        return self.infer(inputs)[0].bytes, *(one.bytes for one in inputs[1:])


@dataclass(frozen=True, slots=True)
class IndexWrite(OperationKind):
    """x, values that stretch to what `Index` would read, and places for each of `axes` -> x with
    the values there, or with them added."""

    name: ClassVar[str] = "index_write"
    axes: tuple[int, ...]
    add: bool = False

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        x, values, *places = take(inputs, self.name, 2 + len(self.axes))
        shape = _indexed(self.name, x, self.axes, places, inputs)
        fitting = broadcast(shape, values.shape) == shape and values.dtype is x.dtype
        require(fitting, self.name, f"writes {list(shape)}", inputs)
        return (x,)

    def flops(self, inputs: Sequence[Form]) -> int:
        return inputs[1].elements if self.add else 0


def _indexed(
    name: str, x: Form, axes: tuple[int, ...], places: Sequence[Form], inputs: Sequence[Form]
) -> tuple[int, ...]:
    ordered = axes == tuple(sorted(set(axes))) and bool(axes)
    require(ordered and axes[-1] < len(x.shape), name, f"indexes axes {axes}", inputs)
    integers = all(one.dtype is ElementType.INT32 for one in places)
    require(integers, name, "places by int32", inputs)
    shape: tuple[int, ...] | None = ()
    for one in places:
        shape = None if shape is None else broadcast(shape, one.shape)
    require(shape is not None, name, "stretches only sizes of 1", inputs)
    together = axes[-1] - axes[0] == len(axes) - 1
    front = axes[0] if together else 0
    rest = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    return (*rest[:front], *(shape or ()), *rest[front:])


@dataclass(frozen=True, slots=True)
class Scan(OperationKind):
    """The sums, or products, of all numbers up to each along an axis, in fp32."""

    name: ClassVar[str] = "scan"
    function: ScanFunction
    axis: int

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        axis_of(self.axis, len(x.shape), self.name, inputs)
        return (x,)

    def flops(self, inputs: Sequence[Form]) -> int:
        return inputs[0].elements


@dataclass(frozen=True, slots=True)
class Sort(OperationKind):
    """The last axis in order, equals as they were, and the places they come from."""

    name: ClassVar[str] = "sort"
    descending: bool = False

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        require(bool(x.shape), self.name, "orders the last axis", inputs)
        return x, Form(x.shape, ElementType.INT32)

    def flops(self, inputs: Sequence[Form]) -> int:
        return inputs[0].elements


@dataclass(frozen=True, slots=True)
class Pad(OperationKind):
    """`value` before and behind each axis, so many times."""

    name: ClassVar[str] = "pad"
    sizes: tuple[tuple[int, int], ...]
    value: float = 0.0

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        fitting = len(self.sizes) == len(x.shape) and min(map(min, self.sizes), default=0) >= 0
        require(fitting, self.name, f"pads by {self.sizes}", inputs)
        shape = tuple(
            before + size + behind
            for size, (before, behind) in zip(x.shape, self.sizes, strict=True)
        )
        return (replace(x, shape=shape),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Store(OperationKind):
    """A buffer that stays between calls, and what it holds from now on -> the buffer, in its
    place."""

    name: ClassVar[str] = "store"

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        kept, new = take(inputs, self.name, 2)
        require(kept == new, self.name, "keeps what is like the buffer", inputs)
        return (kept,)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0

    def read_bytes(self, inputs: Sequence[Form]) -> tuple[int, ...]:
        return 0, inputs[1].bytes
