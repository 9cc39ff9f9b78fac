"""Writing an operation list: each operation's outputs follow from its inputs."""

from __future__ import annotations

from dataclasses import replace

from ridgeline_backends.neuron.operations import (
    AllGather,
    AllReduce,
    Cast,
    Group,
    Matmul,
    ReduceScatter,
    Reshape,
)
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    Operation,
    OperationKind,
    Section,
)


def weight(name: str, *shape: int, dtype: ElementType) -> Buffer:
    return Buffer(name, Form(shape, dtype), BufferKind.WEIGHT)


def given(name: str, *shape: int, dtype: ElementType = ElementType.INT32) -> Buffer:
    """An input that the host writes."""
    return Buffer(name, Form(shape, dtype), BufferKind.INPUT)


class Listing:
    """The operations of one section, in order. `layer` prefixes the names of what they write."""

    def __init__(self, section: str, cores: int) -> None:
        self._section = section
        self._cores = cores
        self._operations: list[Operation] = []
        self.layer = ""

    @property
    def cores(self) -> int:
        """Of the group that the program is cut over."""
        return self._cores

    def add(self, kind: OperationKind, *inputs: Buffer, to: str) -> Buffer:
        """Append an operation with one output, and return that."""
        return self.add_all(kind, inputs, (to,))[0]

    def add_all(
        self,
        kind: OperationKind,
        inputs: tuple[Buffer, ...],
        to: tuple[str, ...],
        *,
        place: BufferKind = BufferKind.SCRATCH,
    ) -> tuple[Buffer, ...]:
        forms = kind.infer(tuple(one.form for one in inputs))
        outputs = tuple(
            Buffer(self.scoped(name), form, place) for name, form in zip(to, forms, strict=True)
        )
        self._operations.append(Operation(kind, inputs, outputs, self.layer))
        return outputs

    def into(self, kind: OperationKind, *inputs: Buffer, target: Buffer) -> Buffer:
        """Append an operation that writes a buffer there is: a cache, the residual stream."""
        self._operations.append(Operation(kind, inputs, (target,), self.layer))
        return target

    def settle(self, target: Buffer) -> Buffer:
        """Let the operation added last write this buffer instead."""
        last = self._operations[-1]
        self._operations[-1] = replace(last, outputs=(target,))
        return target

    def linear(
        self,
        x: Buffer,
        matrix: Buffer,
        *,
        to: str,
        bias: Buffer | None = None,
        scale: Buffer | None = None,
        output: ElementType | None = None,
        joined: int = 1,
    ) -> Buffer:
        vectors = tuple(one for one in (bias, scale) if one is not None)
        kind = Matmul(
            output=output, biased=bias is not None, scaled=scale is not None, joined=joined
        )
        return self.add(kind, x, matrix, *vectors, to=to)

    def shape(self, x: Buffer, *shape: int, to: str) -> Buffer:
        return x if x.shape == shape else self.add(Reshape(shape), x, to=to)

    def cast(self, x: Buffer, dtype: ElementType, *, to: str) -> Buffer:
        return x if x.dtype is dtype else self.add(Cast(dtype), x, to=to)

    def all_reduce(self, x: Buffer, *, to: str) -> Buffer:
        if self._cores == 1:
            return x
        return self.add(AllReduce(Group(self._cores)), x, to=to)

    def all_gather(self, x: Buffer, *, axis: int = -1, to: str) -> Buffer:
        if self._cores == 1:
            return x
        return self.add(AllGather(Group(self._cores), axis), x, to=to)

    def reduce_scatter(self, x: Buffer, *, axis: int, to: str) -> Buffer:
        if self._cores == 1:
            return x
        return self.add(ReduceScatter(Group(self._cores), axis), x, to=to)

    def scoped(self, name: str) -> str:
        return f"{self.layer}.{name}" if self.layer else name

    def section(self, *, repeats: int = 1, first_layer: int = 0, period: int = 1) -> Section:
        return Section(self._section, tuple(self._operations), repeats, first_layer, period)
