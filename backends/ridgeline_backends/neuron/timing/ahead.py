"""Fetches that run ahead: weights and cache entries depend on nothing that a call computes.

DMA queues bring them in while earlier operations run, as far as SBUF has room, in the order in
which they are wanted. So what is ahead is a bucket: it fills while the core does other things, an
operation drinks from it, and waits only for what is not there yet. A section that repeats begins
again with what its last operation left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ridgeline_backends.neuron.timing.work import Array, Part


class Ahead:
    """The fetches of the sections in `rows`: each section begins with nothing ahead."""

    def __init__(self, rows: Array) -> None:
        begins = np.flatnonzero(rows[:, Part.BEGINS])
        self._at = np.flatnonzero((rows[:, Part.WEIGHTS] > 0) | (rows[:, Part.CACHE] > 0))
        section = np.searchsorted(begins, self._at, side="right") - 1
        first = np.flatnonzero(np.diff(section, prepend=-1))
        ends = np.append(first, len(self._at))[1:]
        # Between two fetches of a section time is free: from the row behind the one before.
        self._since = np.append(0, self._at[:-1] + 1)[: len(self._at)]
        self._since[first] = begins[section[first]]
        self._behind = self._at[ends - 1] + 1
        self._ends = np.append(begins[1:], len(rows))[section[first]]
        self._repeats = np.maximum(1.0, rows[self._at, Part.REPEATS])
        self._sections = list(
            zip(first.tolist(), ends.tolist(), (self._repeats[first] > 1).tolist(), strict=True)
        )

    def waits(self, fetch: Array, free: Array, room: Array) -> Array:
        """Seconds that each row waits, on average over its repeats. All [rows] or [sets, rows], in
        seconds: what a row fetches, how long the queues are free while it runs, what SBUF takes."""
        found = np.zeros(fetch.shape)
        total = np.concatenate((np.zeros((*free.shape[:-1], 1)), np.cumsum(free, axis=-1)), axis=-1)
        before = total[..., self._at] - total[..., self._since]
        after = total[..., self._ends] - total[..., self._behind]
        lacks = fetch[..., self._at] - free[..., self._at]
        once, again = self._passes(lacks, before, after, room[..., self._at])
        found[..., self._at] = (once + (self._repeats - 1) * again) / self._repeats
        return found

    def _passes(
        self, lacks: Array, before: Array, after: Array, room: Array
    ) -> tuple[Array, Array]:
        """Of the fetching operations: the waits of a section's first run, and of those behind it.
        `lacks`: what an operation fetches beyond its own time, `before`: free time before it,
        `after`: free time behind a section's last one."""
        once, again = np.zeros_like(lacks), np.zeros_like(lacks)
        several = lacks.ndim > 1
        # One set of coefficients goes through plain floats, which are much faster than arrays of 1.
        larger, smaller = (np.maximum, np.minimum) if several else (max, min)
        lack, free, rest, most = (_rows(one, several) for one in (lacks, before, after, room))

        def run(begin: int, end: int, held: Any, waits: list[Any]) -> Any:
            for at in range(begin, end):
                late = lack[at] - smaller(most[at], held + free[at])
                waits.append(larger(late, 0.0))
                held = smaller(larger(-late, 0.0), most[at])
            return held

        for place, (begin, end, repeated) in enumerate(self._sections):
            waits: list[Any] = []
            held = run(begin, end, 0.0, waits)
            once[..., begin:end] = np.array(waits).T
            if repeated:
                waits = []
                run(begin, end, smaller(most[begin], held + rest[place]), waits)
                again[..., begin:end] = np.array(waits).T
        return once, again


def _rows(values: Array, several: bool) -> Sequence[Any]:
    """By operation: a number, or one of each set."""
    return list(np.ascontiguousarray(values.T)) if several else list(values.tolist())
