"""How good the fit is for architectures it did not see: one after the other is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from ridgeline_backends.neuron.calibration.fit import NOISE, Observation, fit, taught
from ridgeline_backends.neuron.timing.coefficients import NAMES, Coefficients

_COVERED = 0.9
_MANY = 20
_DIGITS = 6


Progress = Callable[[str, int, int], None]
"""Called before each fit: the model that it sees nothing of, its place, and how many there are."""


def silent(model: str, place: int, total: int) -> None:
    """The progress of whoever does not look."""


@dataclass(frozen=True)
class Residual:
    """An observation and what was predicted of it, in the field's own unit."""

    seen: Observation
    predicted: float

    @property
    def measured(self) -> float:
        return self.seen.row.number(self.seen.quantity.field)

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured / self.predicted


def residuals(seen: Sequence[Observation], coefficients: Coefficients) -> list[Residual]:
    """Of all observations under one set of coefficients."""
    return [Residual(one, one.quantity.predicted(coefficients)) for one in seen]


def leave_one_out(
    seen: Sequence[Observation], full: Coefficients, progress: Progress = silent
) -> list[Residual]:
    """Each observation predicted by a fit that saw nothing of its architecture. The fits start
    from the full one's result. Raises `NothingToFit` for fewer than two architectures."""
    fitted = taught(seen)
    found, done = [], 0
    for name in sorted({one.architecture for one in seen}):
        own = [one for one in seen if one.architecture == name]
        if name not in fitted:
            found += residuals(own, full)
            continue
        done += 1
        progress(own[0].row.model or name, done, len(fitted))
        rest = [one for one in seen if one.architecture != name]
        found += residuals(own, fit(rest, start=full))
    return found


def spreads(found: Sequence[Residual]) -> Mapping[str, Mapping[str, object]]:
    """The interval of every domain: the ratios of unseen architectures that 90% lie between, and
    wider for few rows, of which the ends are not known well."""
    domains: dict[str, list[float]] = {}
    for one in found:
        domains.setdefault(one.seen.quantity.domain, []).append(one.ratio)
    return {name: _spread(name, np.log(np.array(ratios))) for name, ratios in domains.items()}


def write_fitted(path: Path, coefficients: Coefficients, found: Sequence[Residual]) -> None:
    """The file that predictions read: the same rows give the same bytes."""
    values = {name: round(getattr(coefficients, name), _DIGITS) for name in NAMES}
    domains = {name: dict(spread) for name, spread in sorted(spreads(found).items())}
    body = {"coefficients": values, "domains": domains}
    head = "# Written by `ridgeline neuron fit`. Priors and bounds are in coefficients.yaml.\n"
    path.write_text(head + yaml.safe_dump(body, sort_keys=False), encoding="utf-8")


def _spread(name: str, logs: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Mapping[str, object]:
    # Of few rows the outermost are no 90% yet; and the fewer, the less their ends are known.
    tail = (1 - _COVERED) / 2 if len(logs) >= _MANY else 0.0
    few = np.sqrt(1 + 4 / len(logs))
    low, high = np.quantile(logs, [tail, 1 - tail])
    return {
        "low": round(float(np.exp(min(low * few, -0.02))), _DIGITS),
        "high": round(float(np.exp(max(high * few, 0.02))), _DIGITS),
        "label": "calibrated" if name in NOISE else "extrapolated",
        "rows": len(logs),
    }
