"""Lines of a program that the native kernels compute become one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from ridgeline_backends.cpu.kernels.library import Library
from ridgeline_backends.neuron.execute.line import Line
from ridgeline_backends.neuron.execute.linear import Scratch
from ridgeline_backends.neuron.execute.native_kinds import Site, emit
from ridgeline_backends.neuron.execute.rounding import held_dtype
from ridgeline_backends.neuron.execute.run_builder import RunBuilder
from ridgeline_backends.neuron.execute.values import Value


class Runs:
    """`resident`: the tensors that stay, and whether they are spread, by their places."""

    def __init__(
        self,
        kernels: Library,
        scratch: Scratch,
        cores: int,
        resident: Mapping[int, tuple[Tensor, bool]],
    ) -> None:
        self._kernels = kernels
        self._scratch = scratch
        self._cores = cores
        self._resident = {
            place: Value.resident(tensor, spread=spread)
            for place, (tensor, spread) in resident.items()
        }

    def joined(self, lines: Sequence[Line], outputs: Iterable[int]) -> list[Line]:
        """The same program with stretches in one call where that can be. `outputs`: the places that
        are asked for."""
        read_after = self._read_after(lines, outputs)
        joined: list[Line] = []
        begin = 0
        while begin < len(lines):
            end, line = self._stretch(lines, begin, read_after)
            joined.append(line)
            begin = end
        return joined

    def _stretch(
        self, lines: Sequence[Line], begin: int, read_after: Sequence[set[int]]
    ) -> tuple[int, Line]:
        """The line that computes those from `begin` on, and where the next begins."""
        builder = RunBuilder(self._cores)
        values: dict[int, Value] = {}
        end = begin
        while end < len(lines) and self._add(lines[end], builder, values):
            end += 1
        if builder.empty:
            return begin + 1, lines[begin]
        written = {place for line in lines[begin:end] for place in line.outputs}
        wanted = sorted((written & read_after[end - 1]) - self._resident.keys())
        run = builder.finish(self._kernels, self._scratch, [values[place] for place in wanted])
        return end, Line(run, list(builder.given), wanted, kept=True)

    def _add(self, line: Line, builder: RunBuilder, values: dict[int, Value]) -> bool:
        bound = line.bound
        assert bound is not None, "lines are joined once"
        given: dict[int, Value] = {}
        inputs: list[Value] = []
        for place, buffer, spread in zip(
            line.inputs, bound.operation.inputs, bound.spread, strict=True
        ):
            value = values.get(place) or self._resident.get(place) or given.get(place)
            if value is None:
                cores = self._cores if spread else 0
                value = Value.fresh(buffer.shape, held_dtype(buffer.dtype), cores=cores)
                given[place] = value
            inputs.append(value)
        forms = tuple(one.form for one in bound.operation.outputs)
        outputs = emit(bound.operation.attributes, inputs, Site(builder, forms, bound.matrices))
        if outputs is None:
            return False
        builder.given.update(given)
        values.update(given)
        values.update(zip(line.outputs, outputs, strict=True))
        return True

    @staticmethod
    def _read_after(lines: Sequence[Line], outputs: Iterable[int]) -> list[set[int]]:
        """For each line, the places whose tensors are read after it."""
        live = set(outputs)
        found: list[set[int]] = []
        for line in reversed(lines):
            found.append(set(live))
            live.difference_update(line.outputs)
            live.update(line.inputs)
        return found[::-1]
