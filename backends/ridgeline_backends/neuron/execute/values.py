"""Where the tensors of a run are, before there is memory for them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(eq=False, slots=True)
class Room:
    """Memory of one tensor: that of `tensor`, which is there; else `size` bytes, which are written
    in phase `born` of a run at first (-1: before it) and read in phase `last` at last."""

    size: int
    tensor: Tensor | None = None
    born: int = -1
    last: int = -1


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor in a room. `view` has its shape, type, strides and offset, but no numbers. Where it
    is `spread`, the first axis is that of the cores."""

    room: Room
    view: Tensor
    spread: bool

    @classmethod
    def resident(cls, tensor: Tensor, *, spread: bool) -> Value:
        view = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return cls(Room(0, tensor), view, spread)

    @classmethod
    def fresh(cls, shape: tuple[int, ...], dtype: torch.dtype, *, cores: int) -> Value:
        """In a room of its own; spread over so many `cores`, 0 where all have the same."""
        whole = (cores, *shape) if cores else shape
        view = torch.empty(whole, dtype=dtype, device="meta")
        return cls(Room(view.numel() * view.element_size()), view, cores > 0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one core's."""
        return tuple(self.view.shape)[self.spread :]

    @property
    def strides(self) -> tuple[int, ...]:
        return self.view.stride()[self.spread :]

    @property
    def core(self) -> int:
        """From one core's to the next, in numbers."""
        return self.view.stride(0) if self.spread else 0

    @property
    def offset(self) -> int:
        """Bytes from the beginning of the room."""
        return int(self.view.storage_offset()) * self.view.element_size()

    def seen(self, view: Tensor) -> Value:
        return Value(self.room, view, self.spread)


@dataclass(frozen=True, slots=True)
class Rows:
    """A value as rows of `inner` numbers that lie together; `row` and `core`: from one to the
    next, in numbers."""

    value: Value
    core: int
    row: int
    count: int
    inner: tuple[int, ...]


def rows_of(value: Value, depth: int) -> Rows | None:
    """The last `depth` axes as rows; None where numbers lie otherwise."""
    lead = len(value.shape) - depth
    if lead < 0:
        return None
    inner = value.shape[lead:]
    if _step(inner, value.strides[lead:]) not in (None, 1):
        return None
    row = _step(value.shape[:lead], value.strides[:lead])
    if row == -1:
        return None
    count = prod(value.shape[:lead])
    return Rows(value, value.core, prod(inner) if row is None else row, count, inner)


def _step(shape: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """What lies between neighbours where all axes are walked as one; None for a single number, -1
    where there is no such step."""
    step: int | None = None
    span = 0
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size == 1:
            continue
        if step is not None and stride != span:
            return -1
        step = stride if step is None else step
        span = stride * size
    return step


def content_depth(shape: tuple[int, ...]) -> int:
    """How many axes one token has: [batch, length, heads, dim] has two."""
    return 2 if len(shape) > 3 else 1
