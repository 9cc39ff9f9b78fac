"""Work and coefficients to seconds: the one place where time is made.

Of an operation's parts (tensor engine, other engines, spills) the longest counts in full, and of
the rest the share that is not hidden behind it; its dependent steps, collectives and the host come
on top. Operations of a program follow one another; weights and cache are fetched ahead of them, and
what is late is waited for. Newer compilers do the same in less time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ridgeline_backends.neuron.timing.ahead import Ahead
from ridgeline_backends.neuron.timing.coefficients import Coefficients
from ridgeline_backends.neuron.timing.work import Array, Part, Work


def seconds(work: Work, coefficients: Coefficients) -> float:
    """Of one work."""
    return float(operation_seconds(work.rows, coefficients).sum())


def sums(values: Array, starts: NDArray[np.int64]) -> Array:
    """Sums of the stretches of the last axis that begin at `starts`."""
    return np.add.reduceat(values, starts, axis=-1)


def operation_seconds(rows: Array, c: Coefficients, ahead: Ahead | None = None) -> Array:
    """Of each operation, all its repeats together: [rows], or [sets, rows] of coefficients side by
    side. `ahead`: of these rows, if it was made before."""
    part = rows.T
    tensor = part[Part.TENSOR] / c.tensor_efficiency
    others = (
        np.maximum(part[Part.VECTOR], part[Part.SCALAR]) + part[Part.GPSIMD]
    ) / c.engine_efficiency
    moved = part[Part.EXPERTS] / c.weight_bandwidth + part[Part.SPILL] / c.spill_bandwidth
    longest = np.maximum(np.maximum(tensor, others), moved)
    computing = longest + (1 - c.engine_overlap) * (tensor + others + moved - longest)
    compiled = np.exp(-c.compiler_progress * part[Part.VERSIONS])
    busy = (
        compiled * (computing + part[Part.STEPS] * c.step_us * 1e-6)
        + part[Part.COLLECTIVES] * c.collective_us * 1e-6
        + part[Part.MEMBERS] * c.member_us * 1e-6
        + part[Part.FIXED]
        + part[Part.LINK]
        + part[Part.NETWORK]
    )
    fetched = part[Part.WEIGHTS] / c.weight_bandwidth + part[Part.CACHE] / c.cache_bandwidth
    waits = (ahead or Ahead(rows)).waits(
        fetch=compiled * fetched,
        free=busy - compiled * moved,
        room=part[Part.ROOM] / c.weight_bandwidth,
    )
    host = part[Part.HOST_BYTES] / c.host_gb_s + part[Part.HOST_STEPS] * c.host_step_ms * 1e-3
    taken: Array = part[Part.REPEATS] * (busy + waits + host)
    return taken
