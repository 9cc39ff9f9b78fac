"""Fitting the coefficients: least squares on the logarithms of times, pulled towards the priors.

Only rows of the documented tables of Inferentia2 and Trainium1 and the profiler's take part, and of
serving rows those of one client, which alone see the host. What is left is a test. Every
architecture counts alike, however many rows it has. The result depends on the rows alone: the same
rows give the same digits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ridgeline.errors import InvalidInput, RidgelineError
from ridgeline_backends.neuron.calibration.groups import architecture_of
from ridgeline_backends.neuron.calibration.quantity import Quantity, Simulated
from ridgeline_backends.neuron.calibration.rows import Row, newest
from ridgeline_backends.neuron.calibration.workloads import quantities
from ridgeline_backends.neuron.timing.ahead import Ahead
from ridgeline_backends.neuron.timing.coefficients import (
    NAMES,
    Coefficients,
    priors,
    side_by_side,
)
from ridgeline_backends.neuron.timing.seconds import operation_seconds, sums
from ridgeline_backends.neuron.timing.work import Array, stacked

NOISE = {
    "decode:tpot": 0.05,
    "decode:ttft": 0.3,
    "profile:tkg": 0.1,
    "profile:ctx": 0.25,
    "encoder:latency": 0.06,
    "convnet:latency": 0.2,
    "vision_transformer:latency": 0.2,
    "diffusion:latency": 0.2,
    "training": 0.08,
    "collective": 0.6,
    "serving:single:tpot": 0.2,
}
"""Domains that take part, and how far a row of each is trusted: the relative scatter that rows of
one configuration have between versions of the SDK, and wider where a switch is not published."""

_ROUNDS = 12
_ENOUGH = 1e-5
"""The share of the loss that a round has to gain for another to follow."""

_NUDGE = 1e-4
"""By which slopes are measured, of a coefficient's logarithm."""

_OF_CALLS = ("lat_p50_ms", "inf_s")
_APART = 1.25
"""Beyond that, a row's latency and its rate are of other numbers of calls at once than assumed."""

_HUBER = 2.0
"""Residuals beyond so many deviations count by their size, not its square."""


class NothingToFit(InvalidInput):
    """Rows that teach nothing, or of which none is left to test a fit with."""

    code = "NothingToFit"

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            hint="A fit takes rows of two architectures at least, as each is predicted by one that "
            "has not seen it; of a row a field that is predicted, like tpot_p50_ms, as a number "
            "above 0. `ridgeline neuron score` says which rows lack what.",
        )


@dataclass(frozen=True)
class Observation:
    """One measured field of one row. `agreed`: what else the row measured says the same of how
    long its work took, so that it ran as it is taken to have run."""

    row: Row
    quantity: Quantity | Simulated
    architecture: str
    agreed: bool = True

    @property
    def measured(self) -> float:
        return self.row.number(self.quantity.field)


def observations(rows: Sequence[Row]) -> list[Observation]:
    """All fields that rows have and that can be predicted; of each configuration the newest."""
    found = []
    for row in newest([row for row in rows if row.usable and not row.one_sided]):
        try:
            possible_fields = quantities(row)
        except RidgelineError:
            continue  # refused; the score says so with the reason
        name = architecture_of(row)
        measured = [one for one in possible_fields if row.positive(one.field) is not None]
        agreed = _agree(row, measured)
        found += [Observation(row, quantity, name, agreed) for quantity in measured]
    return found


def _agree(row: Row, measured: Sequence[Quantity | Simulated]) -> bool:
    """Whether latency and rate of an encoder's calls come of the same work. Where they do not, more
    or fewer calls were under way than its benchmark usually has, which the row does not say."""
    taken = [
        one.seconds(row.number(one.field))
        for one in measured
        if isinstance(one, Quantity) and one.field in _OF_CALLS
    ]
    return not taken or max(taken) <= _APART * min(taken)


def fit(seen: Sequence[Observation], start: Coefficients | None = None) -> Coefficients:
    """The coefficients that explain the observations of `NOISE`'s domains best. Raises
    `NothingToFit` where there are none."""
    used = [one for one in seen if _teaches(one)]
    if not used:
        raise NothingToFit("No row can be fitted.")
    problem = _Problem(used)
    values = np.log(np.array(start.values() if start else problem.prior))
    damping = 1e-3
    best = problem.loss(values)
    for _ in range(_ROUNDS):
        residuals, jacobian = problem.linearised(values)
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -jacobian.T @ residuals)
        trial = np.clip(values + step, problem.low, problem.high)
        loss = problem.loss(trial)
        if loss < best:
            done = best - loss < _ENOUGH * best
            values, best, damping = trial, loss, damping / 3
            if done:
                break
        else:
            damping *= 4
            if damping > 1e9:
                break
    return coefficients_of(np.exp(values))


def taught(seen: Sequence[Observation]) -> list[str]:
    """The architectures that a fit learns from. Raises `NothingToFit` where leaving one out leaves
    none."""
    found = sorted({one.architecture for one in seen if _teaches(one)})
    if not found:
        raise NothingToFit("No row can be fitted.")
    if len(found) == 1:
        model = next(one.row.model for one in seen if _teaches(one))
        raise NothingToFit(f"The rows that can be fitted are of one architecture, that of {model}.")
    return found


def coefficients_of(values: Array) -> Coefficients:
    return Coefficients(**{name: float(v) for name, v in zip(NAMES, values, strict=True)})


class _Problem:
    def __init__(self, used: Sequence[Observation]) -> None:
        timed = [(q, one.measured) for one in used if isinstance(q := one.quantity, Quantity)]
        self._rows, self._starts = stacked([quantity.work for quantity, _ in timed])
        self._ahead = Ahead(self._rows)
        self._measured = np.log([quantity.seconds(measured) for quantity, measured in timed])
        crowd = Counter((one.architecture, one.quantity.domain) for one in used)
        self._weights = np.array(
            [
                1 / NOISE[one.quantity.domain]
                / np.sqrt(crowd[one.architecture, one.quantity.domain])
                for one in used
            ]
        )  # fmt: skip
        known = [priors()[name] for name in NAMES]
        self.prior = np.array([one.value for one in known])
        self._spread = np.array([one.spread for one in known])
        self.low = np.log([max(one.low, 1e-3) for one in known])
        self.high = np.log([one.high for one in known])

    def residuals(self, values: Array) -> Array:
        """Of every observation, then of every prior, in deviations: [residuals], or a row for each
        row of values."""
        known = np.exp(values)
        c = side_by_side(known) if known.ndim > 1 else coefficients_of(known)
        taken = operation_seconds(self._rows, c, self._ahead)
        rows = (np.log(sums(taken, self._starts)) - self._measured) * self._weights
        pulls = (values - np.log(self.prior)) / self._spread
        return np.concatenate((rows, pulls), axis=-1)

    def loss(self, values: Array) -> float:
        residuals = self.residuals(values)
        return float((_huber(residuals) * residuals**2).sum())

    def linearised(self, values: Array) -> tuple[Array, Array]:
        """Residuals and their slopes, both weighted down where a residual is far out."""
        moved = values + _NUDGE * np.eye(len(values))
        base, *others = self.residuals(np.vstack((values, moved)))
        scale = np.sqrt(_huber(base))
        return base * scale, (np.array(others) - base).T / _NUDGE * scale[:, None]


def _huber(residuals: Array) -> Array:
    return np.minimum(1.0, _HUBER / np.maximum(np.abs(residuals), 1e-12))


def could_teach(one: Observation) -> bool:
    """Whether it is of a kind that takes part: figures of a simulated run, which are no sums of
    times, are not."""
    return isinstance(one.quantity, Quantity) and one.quantity.domain in NOISE


def _teaches(one: Observation) -> bool:
    """Whether it takes part: rows that contradict themselves do not. All are scored."""
    return one.agreed and could_teach(one)
