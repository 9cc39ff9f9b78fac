"""Work: what programs ask of a machine, in nominal seconds of each of its parts.

One row per operation, one column per part, so that thousands of operations are timed with a few
array operations, and so that the same code serves one prediction and the fit over all rows. What
the columns become in seconds is `timing.seconds`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from math import log

import numpy as np
from numpy.typing import NDArray

from ridgeline_backends.neuron.collectives import cost
from ridgeline_backends.neuron.instructions import Engine, Lowered, Stream, Transfer
from ridgeline_backends.neuron.lowering import lower
from ridgeline_backends.neuron.program import Program, Section
from ridgeline_backends.neuron.schedule import streamed_buffers
from ridgeline_backends.neuron.timing.machine import Machine

Array = NDArray[np.float64]

_JOIN_STEPS = 2
"""Of two cores that hand each other the halves of a result: it is written, then it is fetched."""

_HALF_SPEED_BYTES = 512
"""Rows of fewer bytes lose more than half of a DMA engine's speed (source DM)."""

_FULL_ROW_BYTES = 2048
"""Rows of so many bytes are recommended (source DM)."""


REFERENCE_MINOR = 18
"""The coefficients stand for SDK 2.18."""

_ALL_AT_ONCE_FROM = 11
"""Before this release sums inside an instance went round a ring; since, all cores write to all at
once, which is 3 to 7 times as fast (release notes: runtime 2.14.8, transformers-neuronx 0.4.0)."""

_OLD_RING_STEP_US = 4.5
"""One step of that ring: with it 8 to 24 cores take 3 to 7 times as long as all at once."""


class Part(IntEnum):
    """Columns. Seconds at the data sheet's speed, or counts."""

    TENSOR = 0
    VECTOR = 1
    SCALAR = 2
    GPSIMD = 3
    WEIGHTS = 4
    CACHE = 5
    SPILL = 6
    STEPS = 7  # dependent steps of the operation
    COLLECTIVES = 8
    FIXED = 9  # seconds that no coefficient changes
    LINK = 10
    NETWORK = 11
    HOST_BYTES = 12
    HOST_STEPS = 13
    VERSIONS = 14  # releases after the one the coefficients stand for, each of like gain
    RING = 15  # steps that a collective inside an instance would take as a ring
    REPEATS = 16


@dataclass(frozen=True)
class Work:
    """`rows` [operations, parts]: the last column says how often each operation runs."""

    rows: Array

    @staticmethod
    def of(program: Program, machine: Machine) -> Work:
        """A program on one core of a machine; all cores of a group run alike."""
        # Equal operations are one row: a network of many like blocks is as small as one of them.
        counts: dict[tuple[float, ...], int] = {}
        for section in program.sections:
            streamed = streamed_buffers(section)
            for operation in section.operations:
                parts = _parts_of(lower(operation, machine.chip, streamed), machine)
                counts[parts] = counts.get(parts, 0) + section.repeats
        found = [(*parts, float(times)) for parts, times in counts.items() if any(parts)]
        return Work(np.array(found, dtype=np.float64).reshape(-1, len(Part)))

    @staticmethod
    def each(section: Section, machine: Machine) -> Work:
        """A row for each operation of a section, once, in their order."""
        streamed = streamed_buffers(section)
        rows = [
            (*_parts_of(lower(one, machine.chip, streamed), machine), 1.0)
            for one in section.operations
        ]
        return Work(np.array(rows, dtype=np.float64).reshape(-1, len(Part)))

    @staticmethod
    def host(*, steps: float = 0.0, gigabytes: float = 0.0, fixed_s: float = 0.0) -> Work:
        """What the host does around calls: `steps` of its own, bytes over PCIe, and seconds."""
        row = np.zeros((1, len(Part)))
        row[0, Part.HOST_STEPS], row[0, Part.HOST_BYTES] = steps, gigabytes
        row[0, Part.FIXED] = fixed_s
        row[0, Part.REPEATS] = 1.0
        return Work(row)

    @staticmethod
    def total(works: Iterable[Work]) -> Work:
        """One after the other."""
        return Work(np.concatenate([work.rows for work in works]))

    def compiled_by(self, minor: int | None) -> Work:
        """The same, compiled and run by SDK 2.`minor`; None: as new as the coefficients. What a
        release gains is less than what the one before gained."""
        found = self.run_by(minor)
        age = (minor or REFERENCE_MINOR) / REFERENCE_MINOR
        found.rows[:, Part.VERSIONS] = REFERENCE_MINOR * log(age)
        return found

    def run_by(self, minor: int | None) -> Work:
        """The same on the runtime of SDK 2.`minor`."""
        rows = self.rows.copy()
        if (minor or REFERENCE_MINOR) < _ALL_AT_ONCE_FROM:
            rows[:, Part.FIXED] += rows[:, Part.RING] * _OLD_RING_STEP_US * 1e-6
        return Work(rows)

    def __mul__(self, times: float) -> Work:
        """The same work so many times over."""
        rows = self.rows.copy()
        rows[:, Part.REPEATS] *= times
        return Work(rows)


@lru_cache(maxsize=1 << 15)
def _parts_of(lowered: Lowered, machine: Machine) -> tuple[float, ...]:
    chip, lnc = machine.chip, machine.lnc
    # Long rows of weights go as fast as memory does, short ones as its DMA engines do.
    streams = tuple(
        sum(_full_rows(one) for one in lowered.transfers if one.stream is stream)
        / ((machine.memory_gb_s if stream is Stream.WEIGHTS else machine.engines_gb_s) * 1e9)
        for stream in Stream
    )
    engines = (
        lowered.cycles(Engine.TENSOR) / chip.tensor_ghz,
        lowered.cycles(Engine.VECTOR) / chip.vector_ghz,
        lowered.cycles(Engine.SCALAR) / chip.scalar_ghz,
        lowered.cycles(Engine.GPSIMD) / chip.gpsimd_ghz,
    )
    exchange, ring = (0.0, 0.0, 0.0, 0.0), 0.0
    if lowered.exchange is not None:
        asked = cost(lowered.exchange, machine)
        exchange = (1.0, asked.waits_s, asked.link_s, asked.network_s)
        ring = asked.ring_steps
    return (
        *(cycles * 1e-9 / lnc for cycles in engines),
        *streams,
        float(lowered.depth + (_JOIN_STEPS * lowered.joins if lnc > 1 else 0)),
        *exchange,
        0.0,
        0.0,
        0.0,
        ring,
    )


def _full_rows(transfer: Transfer) -> float:
    """Bytes that would take as long in rows of 2 KiB, the length that is recommended."""
    row = transfer.row_bytes
    if not 0 < row < _FULL_ROW_BYTES:
        return float(transfer.bytes)
    lost = (1 + _HALF_SPEED_BYTES / row) / (1 + _HALF_SPEED_BYTES / _FULL_ROW_BYTES)
    return transfer.bytes * lost


def stacked(works: Sequence[Work]) -> tuple[Array, NDArray[np.int64]]:
    """All works' rows under each other, and where each begins."""
    sizes = [len(work.rows) for work in works]
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)
    return np.concatenate([work.rows for work in works]), starts
