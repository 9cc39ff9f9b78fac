"""The operation list of one core: what runs, is timed and is sized.

A `Program` is whole-tensor operations on a core's own shards, over static shapes, with explicit
collectives. Every core of a tensor-parallel group runs the same list on weights of its own; what
differs between them is the input `rank`. A repeated layer is one `Section`, so a program of 126
layers is as small as one of two.

A buffer is a named place in the core's memory. Writing it again overwrites it: what a layer leaves
in the buffer "hidden" is what its next repeat reads there. Within a section of repeats the weights
and KV of each are buffers of their own: "layers.{0}.qkv" stands for as many as there are repeats.

What the kinds of operation are is in `operations`. Imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from math import prod
from typing import ClassVar

from ridgeline_backends.errors import BackendError


class InvalidProgram(BackendError):
    """An operation whose inputs do not go together: a fault of what built the program."""

    code = "InvalidProgram"
    http_status = 500


class ElementType(StrEnum):
    """What a number is kept as."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8_E4M3 = "fp8_e4m3"
    FP8_E5M2 = "fp8_e5m2"
    INT8 = "int8"
    INT32 = "int32"
    BOOL = "bool"

    @property
    def bytes(self) -> int:
        return _BYTES[self]

    @property
    def floating(self) -> bool:
        return self not in (ElementType.INT8, ElementType.INT32, ElementType.BOOL)


_BYTES = {
    ElementType.FP32: 4,
    ElementType.INT32: 4,
    ElementType.BF16: 2,
    ElementType.FP16: 2,
    ElementType.FP8_E4M3: 1,
    ElementType.FP8_E5M2: 1,
    ElementType.INT8: 1,
    ElementType.BOOL: 1,
}


class BufferKind(StrEnum):
    """Whose a buffer is. Weights and KV stay in memory between calls; the host writes inputs and
    reads outputs; scratch lives from the operation that writes it to the last that reads it."""

    WEIGHT = "weight"
    KV = "kv"
    INPUT = "input"
    OUTPUT = "output"
    SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class Form:
    """The shape and type of a tensor."""

    shape: tuple[int, ...]
    dtype: ElementType

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return prod(self.shape) * _BYTES[self.dtype]


@dataclass(frozen=True)
class Buffer:
    """A place in a core's memory. `{0}` in a name stands for the layer of a repeat, `{1}` for the
    one after it, and so on."""

    name: str
    form: Form
    kind: BufferKind = BufferKind.SCRATCH

    @property
    def shape(self) -> tuple[int, ...]:
        return self.form.shape

    @property
    def dtype(self) -> ElementType:
        return self.form.dtype

    @property
    def elements(self) -> int:
        return self.form.elements

    @property
    def bytes(self) -> int:
        return self.form.bytes


class OperationKind(ABC):
    """What an operation does, with its settings: each kind is a frozen dataclass whose fields are
    the attributes. Equal kinds and equal forms are equal work: lowering may be remembered by them.
    """

    name: ClassVar[str]
    moves_data: ClassVar[bool] = True
    """False for another view of the same bytes."""

    @abstractmethod
    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        """The forms of the outputs. Raises `InvalidProgram` for inputs that do not go together."""

    @abstractmethod
    def flops(self, inputs: Sequence[Form]) -> int:
        """Floating-point operations; a multiply-add counts as two."""

    def read_bytes(self, inputs: Sequence[Form]) -> tuple[int, ...]:
        """Bytes read of each input."""
        return tuple(one.bytes for one in inputs) if self.moves_data else (0,) * len(inputs)

    def written_bytes(self, inputs: Sequence[Form]) -> int:
        """Bytes written to the outputs."""
        return sum(one.bytes for one in self.infer(inputs)) if self.moves_data else 0

    def scratch_bytes(self, inputs: Sequence[Form]) -> int:
        """Bytes of device memory that it needs for itself while it runs."""
        return 0


@dataclass(frozen=True)
class Operation:
    """`layer` is where in the model it belongs: "layers.{0}.attention"."""

    attributes: OperationKind
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    layer: str = ""

    @property
    def kind(self) -> str:
        return self.attributes.name

    @cached_property
    def input_forms(self) -> tuple[Form, ...]:
        return tuple(one.form for one in self.inputs)

    @cached_property
    def flops(self) -> int:
        return self.attributes.flops(self.input_forms)

    @cached_property
    def read_bytes(self) -> tuple[int, ...]:
        """Of each input."""
        return self.attributes.read_bytes(self.input_forms)

    @cached_property
    def written_bytes(self) -> int:
        return self.attributes.written_bytes(self.input_forms)

    @property
    def bytes(self) -> int:
        return sum(self.read_bytes) + self.written_bytes

    def check(self) -> None:
        """Raise `InvalidProgram` unless the outputs are what the kind makes of the inputs."""
        expected = self.attributes.infer(self.input_forms)
        found = tuple(one.form for one in self.outputs)
        if expected != found:
            raise InvalidProgram(
                f"{self.kind} in {self.layer or 'the program'} gives {expected}, not {found}."
            )


@dataclass(frozen=True)
class Section:
    """Operations that run `repeats` times, each time on weights and KV of their own. One repeat
    covers `period` layers of the model, the first of them `first_layer`."""

    name: str
    operations: tuple[Operation, ...]
    repeats: int = 1
    first_layer: int = 0
    period: int = 1

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.operations, self.repeats, self.first_layer, self.period))

    def __hash__(self) -> int:
        """Computed once: sections are keys of what was found of their operations."""
        return self._hash

    def layers(self, repeat: int) -> tuple[int, ...]:
        """What `{0}`, `{1}`, ... stand for in one repeat."""
        begin = self.first_layer + repeat * self.period
        return tuple(range(begin, begin + self.period))


@dataclass(frozen=True)
class Program:
    """What one of `cores` cores runs for one `phase` ("context_encoding", "token_generation",
    "encoding", ...), compiled for `batch` sequences and `bucket` positions.

    `key` names the model and the settings it was built with; equal programs are equal lists.
    """

    phase: str
    sections: tuple[Section, ...]
    cores: int = 1
    batch: int = 1
    bucket: int = 1
    key: str = field(default="", compare=False)

    def operations(self) -> Iterator[tuple[Operation, int]]:
        """Every operation with how often it runs, in order of its first time."""
        for section in self.sections:
            for operation in section.operations:
                yield operation, section.repeats

    @property
    def flops(self) -> int:
        return sum(one.flops * times for one, times in self.operations())

    @property
    def bytes(self) -> int:
        return sum(one.bytes * times for one, times in self.operations())

    def buffers(self, kind: BufferKind) -> Iterator[tuple[Buffer, Section]]:
        """Each buffer of that kind once, with the section that has it."""
        seen: set[tuple[str, int]] = set()
        for section in self.sections:
            for operation in section.operations:
                for buffer in (*operation.inputs, *operation.outputs):
                    place = buffer.name, section.first_layer if "{" in buffer.name else -1
                    if buffer.kind is kind and place not in seen:
                        seen.add(place)
                        yield buffer, section

    def bytes_of(self, kind: BufferKind) -> int:
        """Bytes of all buffers of a kind that stay in memory: weights, KV, inputs or outputs."""
        return sum(
            buffer.bytes * (section.repeats if "{" in buffer.name else 1)
            for buffer, section in self.buffers(kind)
        )

    def check(self) -> None:
        """Raise `InvalidProgram` for an operation that is not what its kind says, or that reads
        what nothing has written."""
        written: set[str] = set()
        for section in self.sections:
            for operation in section.operations:
                operation.check()
                for buffer in operation.inputs:
                    if buffer.kind is BufferKind.SCRATCH and buffer.name not in written:
                        raise InvalidProgram(
                            f"{operation.kind} in {operation.layer or section.name} reads "
                            f"{buffer.name!r}, which nothing has written."
                        )
                written.update(buffer.name for buffer in operation.outputs)
