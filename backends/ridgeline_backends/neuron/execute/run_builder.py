"""Collects operations for one native call.

Operations that follow each other on the same rows share a phase, in which a thread takes a row
through all of them: they are joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ridgeline_backends.cpu.kernels.library import Kind, Library
from ridgeline_backends.neuron.execute.linear import PackedMatrices, Scratch
from ridgeline_backends.neuron.execute.run import Entry, Run
from ridgeline_backends.neuron.execute.values import Room, Rows, Value

_WIDE = (Kind.PRODUCT, Kind.ATTEND)
"""Kinds whose results depend on more than a row: each is a phase of its own."""


class RunBuilder:
    """Operations in the order in which they run, on `cores` cores. `given` are the tensors that are
    handed in, by the places that a program knows them by."""

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self.given: dict[int, Value] = {}
        self._entries: list[Entry] = []
        self._phase = -1
        self._written: dict[Room, Rows] = {}

    @property
    def empty(self) -> bool:
        return not self._entries

    def append(
        self,
        kind: Kind,
        rows: Mapping[str, Rows],
        *,
        addresses: Mapping[str, Value] | None = None,
        matrices: PackedMatrices | None = None,
        **numbers: float,
    ) -> None:
        """`rows` has "out", which is written, and what is read."""
        out = rows["out"]
        numbers["rows"] = rows["x"].count
        joined = self._joins(kind, rows)
        if not joined:
            self._phase += 1
            self._written = {}
        self._written[out.value.room] = out
        if out.value.room.born < 0:
            out.value.room.born = self._phase
        for value in (*(one.value for one in rows.values()), *(addresses or {}).values()):
            value.room.last = self._phase
        self._entries.append(Entry(kind, joined, rows, numbers, addresses or {}, matrices))

    def _joins(self, kind: Kind, rows: Mapping[str, Rows]) -> bool:
        """Whether it needs nothing that other rows give in the phase before."""
        last = self._entries[-1] if self._entries else None
        if last is None or kind in _WIDE or last.kind in _WIDE:
            return False
        count = rows["x"].count
        if last.rows["x"].count != count:
            return False
        read = [one for name, one in rows.items() if name != "out"]
        return count == 1 or all(self._is_of_its_row(one) for one in read)

    def _is_of_its_row(self, read: Rows) -> bool:
        written = self._written.get(read.value.room)
        if written is None:
            return True
        ahead = read.value.view.storage_offset() - written.value.view.storage_offset()
        return (read.row, read.count) == (written.row, written.count) and 0 <= ahead < written.row

    def finish(self, kernels: Library, scratch: Scratch, wanted: Iterable[Value]) -> Run:
        """`wanted`: the values that it is to give, in order."""
        return Run(kernels, scratch, self._entries, list(self.given.values()), list(wanted))
