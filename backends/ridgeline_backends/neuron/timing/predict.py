"""Predictions: seconds with a 90% interval, and how far the rows vouch for them.

The interval of a domain comes from rows of architectures that the fit did not see. Labels:
`calibrated` where rows of the domain took part in the fit, `extrapolated` where there are rows but
the coefficients are others', `prior-only` where there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ridgeline_backends.neuron.datafile import Section, read_sections
from ridgeline_backends.neuron.program import Program
from ridgeline_backends.neuron.timing.coefficients import DATA, NAMES, Coefficients, priors
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.seconds import seconds
from ridgeline_backends.neuron.timing.work import Work

Label = Literal["calibrated", "extrapolated", "prior-only"]

UNKNOWN = (0.4, 2.5)
"""Factors of the interval where no row vouches for a prediction."""

_DOMAINS: Mapping[str, str] = {
    "token_generation": "profile:tkg",
    "context_encoding": "profile:ctx",
    "encoding": "encoder:latency",
    "denoising": "diffusion:latency",
    "training": "training",
}

_OTHERS: Mapping[tuple[str, str], str] = {
    ("v1", "encoding"): "encoder_inf1:latency",
    ("v3", "token_generation"): "nxdi:tpot",
    ("v3", "context_encoding"): "nxdi:ttft",
}


@dataclass(frozen=True, slots=True)
class Spread:
    """A measured value lies between `low` and `high` times the predicted, nine times of ten."""

    low: float
    high: float
    label: Label
    rows: int


@dataclass(frozen=True)
class Calibration:
    """Fitted coefficients, and how far rows of each domain were from what was predicted."""

    coefficients: Coefficients
    spreads: Mapping[str, Spread]

    def spread(self, domain: str) -> Spread:
        """Of a domain; the widest for one without rows."""
        return self.spreads.get(domain, Spread(*UNKNOWN, "prior-only", 0))


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds, with the ends of a 90% interval."""

    seconds: float
    low: float
    high: float
    label: Label


def predict(program: Program, machine: Machine) -> Prediction:
    """How long one call of a program takes on the device."""
    known = calibration()
    found = seconds(Work.of(program, machine), known.coefficients)
    spread = known.spread(_domain(program.phase, machine.chip.neuroncore))
    return Prediction(found, found * spread.low, found * spread.high, spread.label)


def _domain(phase: str, neuroncore: str) -> str:
    """Whose errors a prediction shares. Of Trainium2 there are rows of decoders alone, which took
    no part in the fit; of Trainium3 none."""
    if neuroncore == "v2":
        return _DOMAINS.get(phase, "")
    return _OTHERS.get((neuroncore, phase), "")


@cache
def calibration() -> Calibration:
    """What was fitted last. Raises `InvalidDataFile`."""
    return load_calibration(DATA / "fitted.yaml")


def load_calibration(path: Path) -> Calibration:
    """Read what `ridgeline neuron fit` wrote; a coefficient out of its bounds is an error."""
    top = read_sections(path)
    entries = top.section("coefficients")
    values = {name: entries.number(name) for name in NAMES}
    entries.done()
    for name, value in values.items():
        if not priors()[name].low <= value <= priors()[name].high:
            raise entries.wrong(name, f"within its bounds of {priors()[name]}")
    domains = top.section("domains")
    spreads = {name: _spread(domains.section(name)) for name in domains.names()}
    top.done()
    return Calibration(Coefficients(**values), spreads)


def _spread(entry: Section) -> Spread:
    label = entry.text("label")
    if label not in ("calibrated", "extrapolated"):
        raise entry.wrong("label", "calibrated or extrapolated")
    found = Spread(
        low=entry.number("low"),
        high=entry.number("high"),
        label="calibrated" if label == "calibrated" else "extrapolated",
        rows=entry.integer("rows"),
    )
    entry.done()
    return found
