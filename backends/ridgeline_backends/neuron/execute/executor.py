"""Runs a program on all of its cores, operation by operation.

The cores are in step: each operation runs on every core before the next one begins, so a collective
finds all its inputs. Where an operation's inputs are one and the same tensor on all cores, as after
a sum over them, it is computed once: their results would be equal to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ridgeline_backends.neuron.execute.call import Call
from ridgeline_backends.neuron.execute.collectives import EXCHANGES
from ridgeline_backends.neuron.execute.kernels import KERNELS, Kernel
from ridgeline_backends.neuron.execute.memory import CoreMemory
from ridgeline_backends.neuron.execute.rounding import rounded
from ridgeline_backends.neuron.execute.together import joined
from ridgeline_backends.neuron.operations import (
    Collective,
    Concat,
    Embedding,
    KVWrite,
    OwnPart,
    Take,
)
from ridgeline_backends.neuron.program import (
    BufferKind,
    InvalidProgram,
    Operation,
    OperationKind,
    Program,
)

_UNCHANGED = (Concat, Embedding, KVWrite, Take)
"""Kinds that give numbers as they were, beside those that move nothing."""

Cores = list[Tensor]
"""A tensor for each core; the same one where cores are known to hold equal numbers."""


@dataclass(slots=True)
class _Line:
    """One operation of one repeat. `uniform`: equal inputs give equal results on every core.
    `done` are the places of the tensors that nobody reads later."""

    kind: OperationKind
    kernel: Kernel | None
    calls: list[Call]
    inputs: list[int]
    outputs: list[int]
    rounds: bool
    uniform: bool
    done: list[int]


class LoadedProgram:
    """A program bound to the memory of its cores. Used by one thread, in inference mode."""

    def __init__(
        self, program: Program, memory: CoreMemory, *, outputs: Iterable[str] | None = None
    ) -> None:
        """`outputs`: those that will be asked for, None for all. What only others need is left
        out."""
        self.program = program
        self._memory = memory
        self._memo: dict[tuple[str, int], object] = {}
        self._places: dict[str, int] = {}
        self._resident: dict[int, Cores] = {}
        wanted = None if outputs is None else set(outputs)
        self._lines = self._flatten(wanted)
        self._outputs = {
            buffer.name: self._places[buffer.name]
            for buffer, _ in program.buffers(BufferKind.OUTPUT)
            if wanted is None or buffer.name in wanted
        }
        self._inputs = {
            buffer.name: buffer
            for buffer, _ in program.buffers(BufferKind.INPUT)
            if buffer.name in self._places
        }
        self._release()

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Cores]:
        """The outputs of every core. Every core gets the same inputs; "rank" is its own number.

        Raises `InvalidProgram` for an input that is missing or of another shape.
        """
        self._memo.clear()
        held: list[Cores | None] = [None] * len(self._places)
        for place, tensors in self._resident.items():
            held[place] = tensors
        for name, buffer in self._inputs.items():
            if name == "rank":
                held[self._places[name]] = _ranks(self._memory.cores)
                continue
            given = inputs.get(name)
            if given is None or tuple(given.shape) != buffer.shape:
                found = "missing" if given is None else f"{tuple(given.shape)}"
                raise InvalidProgram(f"Input {name!r} must be {buffer.shape}, not {found}.")
            held[self._places[name]] = [given] * self._memory.cores
        for line in self._lines:
            self._step(line, held)
        self._memo.clear()
        return {name: _held(held, place) for name, place in self._outputs.items()}

    def _step(self, line: _Line, held: list[Cores | None]) -> None:
        inputs = [_held(held, place) for place in line.inputs]
        if line.kernel is None:
            assert isinstance(line.kind, Collective)
            results = [_exchanged(line, inputs[0])]
        elif _alike(line, inputs):
            found = _tensors(line.kernel(line.kind, [one[0] for one in inputs], line.calls[0]))
            own = [_kept(line, found, index) for index in range(len(found))]
            results = [[one] * self._memory.cores for one in own]
        elif (
            together := joined(line.kind, inputs, line.calls[0], self._memory.whole_cache)
        ) is not None:
            found = _tensors(line.kernel(line.kind, together, line.calls[0]))
            # A cache was written in its place.
            results = (
                [inputs[0]]
                if isinstance(line.kind, KVWrite)
                else [list(_kept(line, found, 0).chunk(self._memory.cores))]
            )
        else:
            by_core = [
                _tensors(line.kernel(line.kind, [one[core] for one in inputs], call))
                for core, call in enumerate(line.calls)
            ]
            results = [
                [_kept(line, found, index) for found in by_core]
                for index in range(len(line.outputs))
            ]
        for place, result in zip(line.outputs, results, strict=True):
            held[place] = result
        for place in line.done:
            held[place] = None

    def _flatten(self, wanted: set[str] | None) -> list[_Line]:
        lines: list[_Line] = []
        for section in self.program.sections:
            for repeat in range(section.repeats):
                layers = section.layers(repeat)
                lines.extend(self._line(one, layers) for one in section.operations)
        if wanted is None:
            return lines
        needed = {self._places[name] for name in wanted}
        kept: list[_Line] = []
        for line in reversed(lines):
            if isinstance(line.kind, KVWrite) or not needed.isdisjoint(line.outputs):
                kept.append(line)
                needed.difference_update(line.outputs)
                needed.update(line.inputs)
        return kept[::-1]

    def _line(self, operation: Operation, layers: Sequence[int]) -> _Line:
        kind = operation.attributes
        multiplies = []
        inputs = []
        for place, buffer in enumerate(operation.inputs):
            name = buffer.name.format(*layers) if "{" in buffer.name else buffer.name
            inputs.append(self._place(name))
            if operation.kind == "matmul" and place == 1:
                multiplies = self._memory.multiplies(name)
        outputs = [
            self._place(one.name.format(*layers) if "{" in one.name else one.name)
            for one in operation.outputs
        ]
        forms = tuple(one.form for one in operation.outputs)
        calls = [
            Call(core, forms, multiplies[core] if multiplies else None, self._memo)
            for core in range(self._memory.cores)
        ]
        rounds = kind.moves_data and not isinstance(kind, _UNCHANGED)
        own = {id(call.multiply) for call in calls}
        uniform = len(own) == 1 and not isinstance(kind, OwnPart)
        return _Line(kind, KERNELS.get(type(kind)), calls, inputs, outputs, rounds, uniform, [])

    def _place(self, name: str) -> int:
        place = self._places.setdefault(name, len(self._places))
        tensors = self._memory.tensors(name)
        if tensors:
            self._resident[place] = tensors
        elif self._memory.multiplies(name):
            # Never read as a tensor: the product goes by what was prepared.
            self._resident[place] = [_NOTHING] * self._memory.cores
        return place

    def _release(self) -> None:
        """Note after which line a tensor is read for the last time."""
        keep = {*self._resident, *self._outputs.values()}
        seen: set[int] = set()
        for line in reversed(self._lines):
            for place in {*line.inputs, *line.outputs} - seen - keep:
                line.done.append(place)
                seen.add(place)
            # What is written here was another tensor before.
            seen.difference_update(set(line.outputs) - set(line.inputs))


_NOTHING = torch.empty(0)


def _ranks(cores: int) -> Cores:
    return [torch.tensor([core]) for core in range(cores)]


def _held(held: list[Cores | None], place: int) -> Cores:
    found = held[place]
    assert found is not None, "an operation reads what was let go"
    return found


def _alike(line: _Line, inputs: list[Cores]) -> bool:
    """Whether every core would compute the same."""
    return line.uniform and all(one is own[0] for own in inputs for one in own)


def _tensors(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def _kept(line: _Line, found: tuple[Tensor, ...], index: int) -> Tensor:
    """One output, as its buffer keeps it."""
    if not line.rounds:
        return found[index]
    return rounded(found[index], line.calls[0].outputs[index].dtype)


def _exchanged(line: _Line, parts: Cores) -> Cores:
    kind = line.kind
    assert isinstance(kind, Collective)
    exchange = EXCHANGES[type(kind)]
    results: dict[int, Tensor] = {}
    dtype = line.calls[0].dtype
    for core in range(len(parts)):
        if core in results:
            continue
        group = kind.group.of(core)
        received = exchange(kind, [parts[member] for member in group])
        made: dict[int, Tensor] = {}
        for member, tensor in zip(group, received, strict=True):
            if id(tensor) not in made:
                made[id(tensor)] = rounded(tensor, dtype)
            results[member] = made[id(tensor)]
    return [results[core] for core in range(len(parts))]
