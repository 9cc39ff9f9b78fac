"""The memory of the logical cores: each has its own weights and KV, and no more than its HBM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

import torch
from torch import Tensor

from ridgeline_backends.neuron.execute.linear import Matrices, Scratch, prepare
from ridgeline_backends.neuron.execute.rounding import rounded, torch_dtype
from ridgeline_backends.neuron.program import Buffer, BufferKind, ElementType, Program, Section

LoadWeight = Callable[[str], list[Tensor]]
"""A weight's name, its layer filled in, to the part of each core."""


def names_of(buffer: Buffer, section: Section) -> list[str]:
    """The names that a buffer of a repeated section stands for."""
    if "{" not in buffer.name:
        return [buffer.name]
    return [buffer.name.format(*section.layers(repeat)) for repeat in range(section.repeats)]


class CoreMemory:
    """Weights and KV of every core of a program, by name.

    What differs between cores is *spread*: a tensor [cores, ...], one core's below the other's.
    What is equal on all is held once: two cores may share a tensor of the host's. A matrix that
    only matrix products read is kept as these want it.
    """

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self.scratch = Scratch()
        self._tensors: dict[str, tuple[Tensor, bool]] = {}
        self._matrices: dict[str, Matrices] = {}
        self._kv: dict[str, Buffer] = {}

    def beside(self) -> CoreMemory:
        """The memory of another group of cores with the same weights, and KV of its own."""
        other = CoreMemory(self.cores)
        other.scratch, other._matrices, other._kv = self.scratch, self._matrices, self._kv
        own = {name: other._empty(buffer) for name, buffer in self._kv.items()}
        other._tensors = {**self._tensors, **own}
        return other

    def load(self, programs: Iterable[Program], weight: LoadWeight) -> None:
        """Bring in what these programs read, each weight once, one at a time."""
        programs = tuple(programs)
        multiplied = _multiplied_only(programs)
        for program in programs:
            for buffer, section in program.buffers(BufferKind.WEIGHT):
                for name in names_of(buffer, section):
                    if name in self._tensors or name in self._matrices:
                        continue
                    parts = weight(name)
                    # Parts that are one tensor of the loader's, as of a norm, stay one.
                    alike = all(part is parts[0] for part in parts)
                    if buffer.name in multiplied:
                        own = parts[:1] if alike else parts
                        self._matrices[name] = prepare(
                            own, self.scratch, exact=multiplied[buffer.name] is ElementType.FP32
                        )
                    else:
                        kept = parts[0].clone() if alike else torch.stack(parts)
                        self._tensors[name] = kept, not alike
            for buffer, section in program.buffers(BufferKind.KV):
                for name in names_of(buffer, section):
                    if name not in self._tensors:
                        self._tensors[name] = self._empty(buffer)
                        self._kv[name] = buffer

    def tensor(self, name: str) -> tuple[Tensor, bool] | None:
        """A buffer's tensor and whether it is spread; None for what is no weight or KV, and for a
        matrix that is only multiplied by."""
        return self._tensors.get(name)

    def matrices(self, name: str) -> Matrices | None:
        return self._matrices.get(name)

    def _empty(self, buffer: Buffer) -> tuple[Tensor, bool]:
        kept = buffer.dtype
        # torch computes nothing on 8-bit floats; what is kept are their values.
        narrow = kept in (ElementType.FP8_E4M3, ElementType.FP8_E5M2)
        spread = self.cores > 1
        shape = (self.cores, *buffer.shape) if spread else buffer.shape
        return _zeros(shape, torch.bfloat16 if narrow else torch_dtype(kept)), spread


def _zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Zeros that take no memory of the host until they are written to."""
    size = prod(shape)
    if not size:
        return torch.zeros(*shape, dtype=dtype)
    room = mmap(-1, size * dtype.itemsize, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    return torch.frombuffer(room, dtype=dtype, count=size).view(tuple(shape))


def _multiplied_only(programs: Iterable[Program]) -> dict[str, ElementType]:
    """Names of the weights that nothing but a matrix product reads, and of what type is what they
    are multiplied with."""
    inside: dict[str, ElementType] = {}
    elsewhere: set[str] = set()
    for program in programs:
        for operation, _ in program.operations():
            for place, buffer in enumerate(operation.inputs):
                if operation.kind == "matmul" and place == 1:
                    inside[buffer.name] = operation.inputs[0].dtype
                else:
                    elsewhere.add(buffer.name)
    return {name: dtype for name, dtype in inside.items() if name not in elsewhere}


def stored(tensor: Tensor, dtype: ElementType) -> Tensor:
    """A checkpoint's tensor as a core keeps it."""
    if not dtype.floating and not tensor.is_floating_point():
        return tensor.to(torch_dtype(dtype))  # beyond 2^24 fp32 has not every whole number
    return rounded(tensor.float(), dtype).to(torch_dtype(dtype))
