"""Runs a program on all of its cores, operation by operation.

The cores are in step: each operation runs on every core before the next one begins, so that a
collective finds all its inputs. Which tensors differ between cores is known when a program is
loaded: those are spread (see `spread`); the others, as after a sum over all cores, are computed
once, because results would be equal to the bit. Where the native kernels are, stretches of
operations that they know are one call (see `runs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ridgeline_backends.cpu.kernels.library import library
from ridgeline_backends.neuron.execute.call import Call
from ridgeline_backends.neuron.execute.collectives import EXCHANGES
from ridgeline_backends.neuron.execute.line import Bound, Compute, Line
from ridgeline_backends.neuron.execute.linear import Matrices
from ridgeline_backends.neuron.execute.memory import CoreMemory
from ridgeline_backends.neuron.execute.registry import KERNELS, Results
from ridgeline_backends.neuron.execute.rounding import rounded
from ridgeline_backends.neuron.execute.runs import Runs
from ridgeline_backends.neuron.execute.spread import spread_kernel
from ridgeline_backends.neuron.operations import (
    AllGather,
    AllReduce,
    Collective,
    Concat,
    Embedding,
    Gather,
    Index,
    KVWrite,
    Matmul,
    OwnPart,
    Store,
    Take,
)
from ridgeline_backends.neuron.program import (
    BufferKind,
    ElementType,
    InvalidProgram,
    Operation,
    OperationKind,
    Program,
)

_UNCHANGED = (Concat, Embedding, Gather, Index, KVWrite, Store, Take)
"""Kinds that give numbers as they were, beside those that move nothing."""


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
        self._resident: dict[int, Tensor] = {}
        self._spread: dict[int, bool] = {}
        wanted = None if outputs is None else set(outputs)
        lines = self._flatten(wanted)
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
        self._lines = self._joined(lines)
        self._release()

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """The outputs of every core. Every core gets the same inputs; "rank" is its own number.

        Raises `InvalidProgram` for an input that is missing or of another shape.
        """
        self._memo.clear()
        cores = self._memory.cores
        held: list[Tensor] = [_NOTHING] * len(self._places)
        for place, tensor in self._resident.items():
            held[place] = tensor
        for name, buffer in self._inputs.items():
            if name == "rank":
                ranks = torch.arange(cores)
                held[self._places[name]] = ranks[:, None] if cores > 1 else ranks
                continue
            given = inputs.get(name)
            if given is None or tuple(given.shape) != buffer.shape:
                found = "missing" if given is None else f"{tuple(given.shape)}"
                raise InvalidProgram(f"Input {name!r} must be {buffer.shape}, not {found}.")
            held[self._places[name]] = given
        for line in self._lines:
            results = line.compute([held[place] for place in line.inputs])
            if isinstance(results, tuple):
                for place, result in zip(line.outputs, results, strict=True):
                    held[place] = result
            else:
                held[line.outputs[0]] = results
            for place in line.done:
                held[place] = _NOTHING
        self._memo.clear()
        return {
            name: list(held[place]) if self._spread[place] else [held[place]] * cores
            for name, place in self._outputs.items()
        }

    def _flatten(self, wanted: set[str] | None) -> list[Line]:
        lines: list[Line] = []
        for section in self.program.sections:
            for repeat in range(section.repeats):
                layers = section.layers(repeat)
                lines.extend(self._line(one, layers) for one in section.operations)
        if wanted is None:
            return lines
        needed = {self._places[name] for name in wanted}
        kept: list[Line] = []
        for line in reversed(lines):
            if line.kept or not needed.isdisjoint(line.outputs):
                kept.append(line)
                needed.difference_update(line.outputs)
                needed.update(line.inputs)
        return kept[::-1]

    def _line(self, operation: Operation, layers: Sequence[int]) -> Line:
        names = [one.name.format(*layers) for one in operation.inputs]
        inputs = [self._place(name) for name in names]
        outputs = [self._place(one.name.format(*layers)) for one in operation.outputs]
        matrices = self._memory.matrices(names[1]) if operation.kind == "matmul" else None
        spread = [self._spread[one] for one in inputs]
        compute, apart = self._bound(operation, spread, matrices)
        for place in outputs:
            self._spread[place] = apart
        return Line(
            compute,
            inputs,
            outputs,
            kept=isinstance(operation.attributes, KVWrite | Store),
            bound=Bound(operation, spread, matrices),
        )

    def _bound(
        self, operation: Operation, spread: list[bool], matrices: Matrices | None
    ) -> tuple[Compute, bool]:
        """What computes an operation, and whether its results are spread."""
        kind, cores = operation.attributes, self._memory.cores
        forms = tuple(one.form for one in operation.outputs)
        call = Call(0, forms, matrices, self._memo)
        if isinstance(kind, Collective):
            alike = isinstance(kind, AllReduce | AllGather) and kind.group.size == cores
            return _exchange(kind, call, cores, spread=spread[0], alike=alike), not alike
        apart = any(spread) or (matrices is not None and matrices.count > 1)
        apart = apart or (isinstance(kind, OwnPart) and cores > 1)
        compute = _together(kind, call, spread, cores) if apart else _once(kind, call)
        rounds = kind.moves_data and not isinstance(kind, _UNCHANGED)
        if not rounds or all(form.dtype is ElementType.FP32 for form in forms):
            return compute, apart
        if len(forms) > 1:
            return _rounded_all(compute, [form.dtype for form in forms]), apart
        return _rounded(compute, forms[0].dtype), apart

    def _joined(self, lines: list[Line]) -> list[Line]:
        """With native calls where there are kernels."""
        kernels = library()
        if kernels is None:
            return lines
        resident = {
            place: (tensor, self._spread[place]) for place, tensor in self._resident.items()
        }
        runs = Runs(kernels, self._memory.scratch, self._memory.cores, resident)
        return runs.joined(lines, self._outputs.values())

    def _place(self, name: str) -> int:
        place = self._places.get(name)
        if place is not None:
            return place
        place = self._places[name] = len(self._places)
        found = self._memory.tensor(name)
        if found is not None:
            self._resident[place], self._spread[place] = found
        else:
            # A matrix that is only multiplied by is never read as a tensor.
            self._spread[place] = name == "rank" and self._memory.cores > 1
            if self._memory.matrices(name) is not None:
                self._resident[place] = _NOTHING
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


def _once(kind: OperationKind, call: Call) -> Compute:
    """All cores would compute the same."""
    if isinstance(kind, Matmul) and call.matrices is not None:
        # One core, or one matrix for all.
        product = spread_kernel(kind, ())
        return lambda inputs: _only(product(kind, inputs, (False,) * len(inputs), call, 1))
    kernel = KERNELS[type(kind)]
    return lambda inputs: kernel(kind, inputs, call)


def _only(found: Results) -> Tensor:
    assert isinstance(found, Tensor), "a product has one result"
    return found[0]


def _together(kind: OperationKind, call: Call, spread: Sequence[bool], cores: int) -> Compute:
    kernel = spread_kernel(kind, spread)
    return lambda inputs: kernel(kind, inputs, spread, call, cores)


def _rounded(compute: Compute, dtype: ElementType) -> Compute:
    def run(inputs: Sequence[Tensor]) -> Results:
        found = compute(inputs)
        return rounded(found[0] if isinstance(found, tuple) else found, dtype)

    return run


def _rounded_all(compute: Compute, dtypes: Sequence[ElementType]) -> Compute:
    return lambda inputs: tuple(
        rounded(one, dtype) for one, dtype in zip(compute(inputs), dtypes, strict=True)
    )


def _exchange(kind: Collective, call: Call, cores: int, *, spread: bool, alike: bool) -> Compute:
    """`alike`: every core gets the same."""
    exchange, dtype = EXCHANGES[type(kind)], call.dtype

    def run(inputs: Sequence[Tensor]) -> Results:
        parts = list(inputs[0]) if spread else [inputs[0]] * cores
        if alike:
            return rounded(exchange(kind, parts)[0], dtype)
        results: dict[int, Tensor] = {}
        for core in range(cores):
            if core not in results:
                group = kind.group.of(core)
                received = exchange(kind, [parts[member] for member in group])
                results.update(zip(group, received, strict=True))
        return rounded(torch.stack([results[core] for core in range(cores)]), dtype)

    return run
