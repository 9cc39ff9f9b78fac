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
from ridgeline_backends.neuron.lowering.rules import AHEAD_BYTES
from ridgeline_backends.neuron.program import Program, Section
from ridgeline_backends.neuron.schedule import lowered
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

_SMALL_IMPROVED_FROM = 19
"""Since this release collectives on small buffers are faster (release notes: runtime 2.21.41)."""


class Part(IntEnum):
    """Columns. Seconds at the data sheet's speed, or counts."""

    TENSOR = 0
    VECTOR = 1
    SCALAR = 2
    GPSIMD = 3
    WEIGHTS = 4
    EXPERTS = 5  # weights that are fetched when their turn comes
    CACHE = 6
    SPILL = 7
    STEPS = 8  # dependent steps of the operation
    COLLECTIVES = 9
    FIXED = 10  # seconds that no coefficient changes
    LINK = 11
    NETWORK = 12
    MEMBERS = 13  # further members of a small collective, where each costs
    HOST_BYTES = 14
    HOST_STEPS = 15
    VERSIONS = 16  # releases after the one the coefficients stand for, each of like gain
    RING = 17  # steps that a collective inside an instance would take as a ring
    PEERS = 18  # MEMBERS of a release in which they cost
    ROOM = 19  # how many seconds of weights and cache SBUF takes in ahead
    REPEATS = 20
    BEGINS = 21  # 1 for the first operation of a section


EXCHANGE = (Part.COLLECTIVES, Part.MEMBERS, Part.FIXED, Part.LINK, Part.NETWORK)
"""What an operation takes to exchange data."""


@dataclass(frozen=True)
class Work:
    """`rows` [operations, parts], section by section, in the order in which they run."""

    rows: Array

    @staticmethod
    def of(program: Program, machine: Machine) -> Work:
        """A program on one core of a machine; all cores of a group run alike."""
        found = [_rows(section, machine) for section in program.sections]
        return Work(np.concatenate([np.zeros((0, len(Part))), *found]))

    @staticmethod
    def each(section: Section, machine: Machine) -> Work:
        """A row for each operation of a section, those too that take no time."""
        return Work(_rows(section, machine, views=True))

    @staticmethod
    def host(*, steps: float = 0.0, gigabytes: float = 0.0, fixed_s: float = 0.0) -> Work:
        """What the host does around calls: `steps` of its own, bytes over PCIe, and seconds."""
        row = np.zeros((1, len(Part)))
        row[0, Part.HOST_STEPS], row[0, Part.HOST_BYTES] = steps, gigabytes
        row[0, Part.FIXED] = fixed_s
        row[0, Part.REPEATS] = row[0, Part.BEGINS] = 1.0
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
        """The same on the runtime of SDK 2.`minor`; None: the newest."""
        rows = self.rows.copy()
        if minor is None or minor >= _SMALL_IMPROVED_FROM:
            return Work(rows)
        rows[:, Part.MEMBERS] = rows[:, Part.PEERS]
        if minor < _ALL_AT_ONCE_FROM:
            rows[:, Part.FIXED] += rows[:, Part.RING] * _OLD_RING_STEP_US * 1e-6
        return Work(rows)

    def __mul__(self, times: float) -> Work:
        """The same work so many times over."""
        rows = self.rows.copy()
        rows[:, Part.REPEATS] *= times
        return Work(rows)


def _rows(section: Section, machine: Machine, *, views: bool = False) -> Array:
    """Operations that take no time, as views do, are left out if not asked for."""
    parts = [_parts_of(one, machine) for one in lowered(section, machine.chip)]
    kept = [one for one in parts if views or any(one)]
    rows = np.zeros((len(kept), len(Part)))
    if kept:
        rows[:, : len(kept[0])] = kept
        rows[:, Part.ROOM] = AHEAD_BYTES * machine.lnc / (machine.engines_gb_s * 1e9)
        rows[:, Part.REPEATS] = section.repeats
        rows[0, Part.BEGINS] = 1.0
    return rows


@lru_cache(maxsize=1 << 15)
def _parts_of(work: Lowered, machine: Machine) -> tuple[float, ...]:
    """The columns up to PEERS."""
    chip, lnc = machine.chip, machine.lnc
    streams = tuple(
        sum(_full_rows(one) for one in work.transfers if one.stream is stream)
        / (machine.engines_gb_s * 1e9)
        for stream in Stream
    )
    engines = (
        work.cycles(Engine.TENSOR) / chip.tensor_ghz,
        work.cycles(Engine.VECTOR) / chip.vector_ghz,
        work.cycles(Engine.SCALAR) / chip.scalar_ghz,
        work.cycles(Engine.GPSIMD) / chip.gpsimd_ghz,
    )
    exchange, ring, peers = (0.0, 0.0, 0.0, 0.0), 0.0, 0
    if work.exchange is not None:
        asked = cost(work.exchange, machine)
        exchange = (1.0, asked.waits_s, asked.link_s, asked.network_s)
        ring, peers = asked.ring_steps, asked.peers
    return (
        *(cycles * 1e-9 / lnc for cycles in engines),
        *streams,
        float(work.depth + (_JOIN_STEPS * work.joins if lnc > 1 else 0)),
        *exchange,
        0.0,
        0.0,
        0.0,
        0.0,
        ring,
        float(peers),
    )


def _full_rows(transfer: Transfer) -> float:
    """Bytes that would take as long in rows of 2 KiB, the length that is recommended."""
    row = transfer.row_bytes
    if not 0 < row < _FULL_ROW_BYTES:
        return float(transfer.bytes)
    lost = (1 + _HALF_SPEED_BYTES / row) / (1 + _HALF_SPEED_BYTES / _FULL_ROW_BYTES)
    return transfer.bytes * lost


def row_seconds(size: int, row: int, machine: Machine) -> float:
    """Nominal seconds in which DMA engines move so many bytes in rows of `row`."""
    return _full_rows(Transfer(Stream.WEIGHTS, size, row)) / (machine.engines_gb_s * 1e9)


def stacked(works: Sequence[Work]) -> tuple[Array, NDArray[np.int64]]:
    """All works' rows under each other, and where each begins."""
    sizes = [len(work.rows) for work in works]
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)
    return np.concatenate([work.rows for work in works]), starts
