"""The same numbers in another order. A view of the same bytes moves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from ridgeline_backends.neuron.operations.checks import axis_of, require, take
from ridgeline_backends.neuron.program import Form, OperationKind


class _Layout(OperationKind):
    def flops(self, inputs: Sequence[Form]) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Reshape(_Layout):
    name: ClassVar[str] = "reshape"
    moves_data: ClassVar[bool] = False
    shape: tuple[int, ...]

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        require(x.elements == prod(self.shape), self.name, f"makes {self.shape}", inputs)
        return (replace(x, shape=self.shape),)


@dataclass(frozen=True, slots=True)
class Slice(_Layout):
    """`start` to `stop` of an axis, each `step`-th."""

    name: ClassVar[str] = "slice"
    moves_data: ClassVar[bool] = False
    axis: int
    start: int
    stop: int
    step: int = 1

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        axis = axis_of(self.axis, len(x.shape), self.name, inputs)
        within = 0 <= self.start <= self.stop <= x.shape[axis] and self.step > 0
        require(within, self.name, f"takes {self.start}:{self.stop} of axis {axis}", inputs)
        size = -(-(self.stop - self.start) // self.step)
        return (replace(x, shape=(*x.shape[:axis], size, *x.shape[axis + 1 :])),)


@dataclass(frozen=True, slots=True)
class Split(_Layout):
    """Parts of these sizes along an axis, each an output."""

    name: ClassVar[str] = "split"
    moves_data: ClassVar[bool] = False
    sizes: tuple[int, ...]
    axis: int = -1

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        axis = axis_of(self.axis, len(x.shape), self.name, inputs)
        require(sum(self.sizes) == x.shape[axis], self.name, f"gives {self.sizes}", inputs)
        return tuple(
            replace(x, shape=(*x.shape[:axis], size, *x.shape[axis + 1 :])) for size in self.sizes
        )


@dataclass(frozen=True, slots=True)
class Expand(_Layout):
    """Sizes of 1 stretched to `shape`: read again and again from the same place."""

    name: ClassVar[str] = "expand"
    moves_data: ClassVar[bool] = False
    shape: tuple[int, ...]

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        own = (1,) * (len(self.shape) - len(x.shape)) + x.shape
        fitting = len(own) == len(self.shape) and all(
            a in (1, b) for a, b in zip(own, self.shape, strict=True)
        )
        require(fitting, self.name, f"stretches to {self.shape}", inputs)
        return (replace(x, shape=self.shape),)


@dataclass(frozen=True, slots=True)
class Transpose(_Layout):
    """Axis i of the output is axis `order[i]` of the input."""

    name: ClassVar[str] = "transpose"
    order: tuple[int, ...]

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        complete = sorted(self.order) == list(range(len(x.shape)))
        require(complete, self.name, f"orders the axes as {self.order}", inputs)
        return (replace(x, shape=tuple(x.shape[axis] for axis in self.order)),)


@dataclass(frozen=True, slots=True)
class Concat(_Layout):
    name: ClassVar[str] = "concat"
    axis: int = -1

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        forms = take(inputs, self.name, 1, 1 << 16)
        first = forms[0]
        axis = axis_of(self.axis, len(first.shape), self.name, inputs)
        rest = {(*one.shape[:axis], *one.shape[axis + 1 :]) for one in forms}
        require(len(rest) == 1, self.name, "joins tensors that differ in one axis", inputs)
        size = sum(one.shape[axis] for one in forms)
        return (replace(first, shape=(*first.shape[:axis], size, *first.shape[axis + 1 :])),)
