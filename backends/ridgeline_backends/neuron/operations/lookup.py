"""Rows by number, reductions, and choosing the largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ridgeline_backends.neuron.operations.checks import axis_of, require, take
from ridgeline_backends.neuron.program import ElementType, Form, OperationKind


@dataclass(frozen=True, slots=True)
class Embedding(OperationKind):
    """A table [rows, n] and ids [...] -> [..., n]. With a third input, `rank` [1], the table holds
    the rows from rank * rows on, and an id of another core's gives zeros.

    `known`: how many rows there are in all; an id beyond them, or a negative one, is an error at
    execution. None: negative ids stand for rows of nobody, and there are no others beyond."""

    name: ClassVar[str] = "embedding"
    known: int | None = None

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        table, ids, *_ = take(inputs, self.name, 2, 3)
        require(len(table.shape) == 2, self.name, "reads a table [rows, n]", inputs)
        require(ids.dtype is ElementType.INT32, self.name, "reads by int32", inputs)
        return (Form((*ids.shape, table.shape[1]), table.dtype),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0

    def read_bytes(self, inputs: Sequence[Form]) -> tuple[int, ...]:
        table, ids, *rest = inputs
        rows = ids.elements * table.shape[1] * table.dtype.bytes
        return (rows, ids.bytes, *(one.bytes for one in rest))


@dataclass(frozen=True, slots=True)
class Take(OperationKind):
    """x [batch, length, ...] and one place of each sequence [batch] -> [batch, 1, ...]."""

    name: ClassVar[str] = "take"

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        x, places = take(inputs, self.name, 2)
        require(len(x.shape) >= 2, self.name, "takes of [batch, length, ...]", inputs)
        require(places.shape == x.shape[:1], self.name, "takes one place of each", inputs)
        return (replace(x, shape=(x.shape[0], 1, *x.shape[2:])),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0

    def read_bytes(self, inputs: Sequence[Form]) -> tuple[int, ...]:
        x, places = inputs
        return x.bytes // x.shape[1], places.bytes


@dataclass(frozen=True, slots=True)
class Reduce(OperationKind):
    """Over `axes`, in fp32; bool has "max" and "min" alone. They stay as sizes of 1 with `keep`."""

    name: ClassVar[str] = "reduce"
    function: Literal["sum", "mean", "max", "min", "product"]
    axes: tuple[int, ...]
    keep: bool = False

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        axes = {axis_of(axis, len(x.shape), self.name, inputs) for axis in self.axes}
        sizes = ((1 if axis in axes else size, axis in axes) for axis, size in enumerate(x.shape))
        shape = tuple(size for size, reduced in sizes if self.keep or not reduced)
        return (replace(x, shape=shape),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return inputs[0].elements


@dataclass(frozen=True, slots=True)
class ArgMax(OperationKind):
    """The place of the largest along the last axis, the first of equals."""

    name: ClassVar[str] = "argmax"

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        require(bool(x.shape), self.name, "looks along the last axis", inputs)
        return (Form(x.shape[:-1], ElementType.INT32),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return inputs[0].elements


@dataclass(frozen=True, slots=True)
class TopK(OperationKind):
    """The `k` largest along the last axis, largest first, and their places; or the smallest."""

    name: ClassVar[str] = "top_k"
    k: int
    largest: bool = True

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        enough = bool(x.shape) and 0 < self.k <= x.shape[-1]
        require(enough, self.name, f"looks for {self.k}", inputs)
        shape = (*x.shape[:-1], self.k)
        return Form(shape, x.dtype), Form(shape, ElementType.INT32)

    def flops(self, inputs: Sequence[Form]) -> int:
        return inputs[0].elements
