"""What the cores of a replica group do together. Sums are in fp32 and rounded once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ridgeline_backends.neuron.operations.checks import axis_of, require, take
from ridgeline_backends.neuron.program import Form, OperationKind


@dataclass(frozen=True, slots=True)
class Group:
    """`size` cores, `stride` apart: cores 0, stride, 2 * stride, ... are one group, and all cores
    of a program are in groups alike."""

    size: int
    stride: int = 1

    def of(self, core: int) -> tuple[int, ...]:
        """The cores of the group that a core is in, in the order of their ranks."""
        span = self.size * self.stride
        first = core // span * span + core % self.stride
        return tuple(range(first, first + span, self.stride))


class Collective(OperationKind):
    """`group` says between which cores."""

    group: Group

    @abstractmethod
    def sent_bytes(self, inputs: Sequence[Form]) -> int:
        """Bytes that each core sends to others at least, whatever the algorithm."""


@dataclass(frozen=True, slots=True)
class AllReduce(Collective):
    """The sum of every core's tensor, on every core."""

    name: ClassVar[str] = "all_reduce"
    group: Group

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        return (x,)

    def flops(self, inputs: Sequence[Form]) -> int:
        return inputs[0].elements * (self.group.size - 1) // self.group.size

    def sent_bytes(self, inputs: Sequence[Form]) -> int:
        return 2 * inputs[0].bytes * (self.group.size - 1) // self.group.size


@dataclass(frozen=True, slots=True)
class AllGather(Collective):
    """The tensors of all cores beside each other along an axis, by rank."""

    name: ClassVar[str] = "all_gather"
    group: Group
    axis: int = -1

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        axis = axis_of(self.axis, len(x.shape), self.name, inputs)
        size = x.shape[axis] * self.group.size
        return (replace(x, shape=(*x.shape[:axis], size, *x.shape[axis + 1 :])),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0

    def sent_bytes(self, inputs: Sequence[Form]) -> int:
        return inputs[0].bytes * (self.group.size - 1)


@dataclass(frozen=True, slots=True)
class ReduceScatter(Collective):
    """Of the sum of every core's tensor each core gets its own part along an axis."""

    name: ClassVar[str] = "reduce_scatter"
    group: Group
    axis: int = -1

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        axis = axis_of(self.axis, len(x.shape), self.name, inputs)
        even = x.shape[axis] % self.group.size == 0
        require(even, self.name, f"divides axis {axis} by {self.group.size}", inputs)
        size = x.shape[axis] // self.group.size
        return (replace(x, shape=(*x.shape[:axis], size, *x.shape[axis + 1 :])),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return inputs[0].elements * (self.group.size - 1) // self.group.size

    def sent_bytes(self, inputs: Sequence[Form]) -> int:
        return inputs[0].bytes * (self.group.size - 1) // self.group.size


@dataclass(frozen=True, slots=True)
class AllToAll(Collective):
    """Each core sends the i-th part along `split` to core i, and joins what it gets, by rank, along
    `concat`."""

    name: ClassVar[str] = "all_to_all"
    group: Group
    split: int = 0
    concat: int = 0

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        split = axis_of(self.split, len(x.shape), self.name, inputs)
        concat = axis_of(self.concat, len(x.shape), self.name, inputs)
        even = x.shape[split] % self.group.size == 0
        require(even, self.name, f"divides axis {split} by {self.group.size}", inputs)
        shape = list(x.shape)
        shape[split] //= self.group.size
        shape[concat] *= self.group.size
        return (replace(x, shape=tuple(shape)),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0

    def sent_bytes(self, inputs: Sequence[Form]) -> int:
        return inputs[0].bytes * (self.group.size - 1) // self.group.size


@dataclass(frozen=True, slots=True)
class Permute(Collective):
    """Each core sends its tensor to the one whose rank is `shift` higher, the last to the first."""

    name: ClassVar[str] = "permute"
    group: Group
    shift: int = 1

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        return (x,)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0

    def sent_bytes(self, inputs: Sequence[Form]) -> int:
        return inputs[0].bytes if self.shift % self.group.size else 0


@dataclass(frozen=True, slots=True)
class OwnPart(OperationKind):
    """Each core keeps its own part along an axis, by rank. Nothing is sent."""

    name: ClassVar[str] = "own_part"
    moves_data: ClassVar[bool] = False
    group: Group
    axis: int = -1

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        return ReduceScatter(self.group, self.axis).infer(inputs)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0
