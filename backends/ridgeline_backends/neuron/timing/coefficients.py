"""The coefficients of the timing model: names, priors, bounds and sources, and fitted values.

At most 12 of them, the same for every chip and model. The priors are data of their own, apart from
the fitted values, so that a fit can be repeated from nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ridgeline_backends.neuron.datafile import read_sections

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What is believed of a coefficient before any row: `spread` is relative to `value`."""

    value: float
    spread: float
    low: float
    high: float
    unit: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """`*_efficiency`: shares of the nominal figure; `*_bandwidth`: of what DMA engines carry.
    `engine_overlap`: the share of an operation's shorter parts that hides
    behind the longest. `step_us`: one dependent step.
    `compiler_progress`: the share of compute time that a release of the SDK saves.
    `collective_us`: starting a collective; `member_us`: each further member of a small one, on
    runtimes before SDK 2.19.
    `host_gb_s`: results on their way to the host; `host_step_ms`: a serving loop's own work."""

    tensor_efficiency: float
    engine_efficiency: float
    engine_overlap: float
    weight_bandwidth: float
    cache_bandwidth: float
    spill_bandwidth: float
    step_us: float
    compiler_progress: float
    collective_us: float
    member_us: float
    host_gb_s: float
    host_step_ms: float

    def values(self) -> tuple[float, ...]:
        return tuple(float(getattr(self, name)) for name in NAMES)


def side_by_side(sets: NDArray[np.float64]) -> Coefficients:
    """Of `sets` [sets, names] one whose values are columns [sets, 1], for arithmetic with rows."""
    columns = {name: cast(float, sets[:, [place]]) for place, name in enumerate(NAMES)}
    return Coefficients(**columns)


NAMES = tuple(one.name for one in fields(Coefficients))


@cache
def priors() -> Mapping[str, Prior]:
    """By name, in the order of `NAMES`. Raises `InvalidDataFile`."""
    return load_priors(DATA / "coefficients.yaml")


def load_priors(path: Path) -> dict[str, Prior]:
    """Read a file of priors: one entry for each coefficient, no other."""
    top = read_sections(path)
    found = {}
    for name in NAMES:
        entry = top.section(name)
        prior = Prior(
            value=entry.number("prior"),
            spread=entry.number("spread"),
            low=entry.number("low"),
            high=entry.number("high"),
            unit=entry.text("unit"),
            source=entry.text("source"),
        )
        entry.done()
        if not prior.low <= prior.value <= prior.high:
            raise entry.wrong("prior", f"between {prior.low:g} and {prior.high:g}")
        found[name] = prior
    top.done()
    return found


def prior_coefficients() -> Coefficients:
    """The priors' values."""
    return Coefficients(**{name: prior.value for name, prior in priors().items()})
