"""The memory of the logical cores: each has its own weights and KV, and no more than its HBM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ridgeline_backends.neuron.execute.linear import Multiply, prepare
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

    A matrix that only matrix products read is kept as these want it. Two names may share a tensor
    of the host's, never of a core's.
    """

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self._tensors: dict[str, list[Tensor]] = {}
        self._multiplies: dict[str, list[Multiply]] = {}
        self._caches: dict[int, Tensor] = {}

    def load(self, programs: Iterable[Program], weight: LoadWeight) -> None:
        """Bring in what these programs read, each weight once, one at a time."""
        programs = tuple(programs)
        multiplied = _multiplied_only(programs)
        for program in programs:
            for buffer, section in program.buffers(BufferKind.WEIGHT):
                for name in names_of(buffer, section):
                    if name in self._tensors or name in self._multiplies:
                        continue
                    # Parts that are one tensor of the loader's, as of a norm, stay one.
                    parts = weight(name)
                    own = {id(part): part for part in parts}
                    if buffer.name in multiplied:
                        ready = {key: prepare(part) for key, part in own.items()}
                        self._multiplies[name] = [ready[id(part)] for part in parts]
                    else:
                        kept = {key: part.clone() for key, part in own.items()}
                        self._tensors[name] = [kept[id(part)] for part in parts]
            for buffer, section in program.buffers(BufferKind.KV):
                for name in names_of(buffer, section):
                    if name not in self._tensors:
                        whole = _empty(buffer, self.cores)
                        parts = list(whole.chunk(self.cores))
                        self._tensors[name] = parts
                        self._caches[id(parts)] = whole

    def tensors(self, name: str) -> list[Tensor]:
        """A buffer's tensor on each core; none for a matrix that is only multiplied by."""
        return self._tensors.get(name, [])

    def whole_cache(self, parts: Sequence[Tensor]) -> Tensor | None:
        """The tensor that the KV caches of the cores are parts of, by their list."""
        return self._caches.get(id(parts))

    def multiplies(self, name: str) -> list[Multiply]:
        return self._multiplies.get(name, [])


def _multiplied_only(programs: Iterable[Program]) -> set[str]:
    """Names of the weights that nothing but a matrix product reads."""
    inside: set[str] = set()
    elsewhere: set[str] = set()
    for program in programs:
        for operation, _ in program.operations():
            for place, buffer in enumerate(operation.inputs):
                own = operation.kind == "matmul" and place == 1
                (inside if own else elsewhere).add(buffer.name)
    return inside - elsewhere


def _empty(buffer: Buffer, cores: int) -> Tensor:
    """KV of all cores below each other."""
    kept = buffer.dtype
    # torch computes nothing on 8-bit floats; what is kept are their values.
    narrow = kept in (ElementType.FP8_E4M3, ElementType.FP8_E5M2)
    shape = (buffer.shape[0] * cores, *buffer.shape[1:])
    return torch.zeros(shape, dtype=torch.bfloat16 if narrow else torch_dtype(kept))


def stored(tensor: Tensor, dtype: ElementType) -> Tensor:
    """A checkpoint's tensor as a core keeps it."""
    return rounded(tensor.float(), dtype).to(torch_dtype(dtype))
