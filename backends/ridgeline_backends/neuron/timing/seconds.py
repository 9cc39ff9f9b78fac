"""Work and coefficients to seconds: the one place where time is made.

Of an operation's parts (tensor engine, other engines, DMA) the longest counts in full, and of the
rest the share that is not hidden behind it; its dependent steps, collectives and the host come on
top. Operations of a program follow one another. Newer compilers do the same in less time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ridgeline_backends.neuron.timing.coefficients import Coefficients
from ridgeline_backends.neuron.timing.work import Array, Part, Work


def seconds(work: Work, coefficients: Coefficients) -> float:
    """Of one work."""
    return float(operation_seconds(work.rows, coefficients).sum())


def sums(values: Array, starts: NDArray[np.int64]) -> Array:
    """Sums of the stretches that begin at `starts`."""
    return np.add.reduceat(values, starts)


def operation_seconds(rows: Array, c: Coefficients) -> Array:
    """Of each operation, all its repeats together."""
    tensor = rows[:, Part.TENSOR] / c.tensor_efficiency
    others = (
        np.maximum(rows[:, Part.VECTOR], rows[:, Part.SCALAR]) + rows[:, Part.GPSIMD]
    ) / c.engine_efficiency
    moved = (
        rows[:, Part.WEIGHTS] / c.weight_bandwidth
        + rows[:, Part.CACHE] / c.cache_bandwidth
        + rows[:, Part.SPILL] / c.spill_bandwidth
    )
    longest = np.maximum(np.maximum(tensor, others), moved)
    computing = longest + (1 - c.engine_overlap) * (tensor + others + moved - longest)
    compiled = np.exp(-c.compiler_progress * rows[:, Part.VERSIONS])
    return rows[:, Part.REPEATS] * (
        compiled * (computing + rows[:, Part.STEPS] * c.step_us * 1e-6)
        + rows[:, Part.COLLECTIVES] * c.collective_us * 1e-6
        + rows[:, Part.FIXED]
        + (rows[:, Part.LINK] + rows[:, Part.NETWORK]) / c.link_efficiency
        + rows[:, Part.HOST_BYTES] / c.host_gb_s
        + rows[:, Part.HOST_STEPS] * c.host_step_ms * 1e-3
    )
