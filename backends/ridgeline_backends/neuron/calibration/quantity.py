"""What a row's field is as a function of the coefficients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from ridgeline_backends.base import RunnerLimits
from ridgeline_backends.neuron.serving.costs import StepCosts
from ridgeline_backends.neuron.serving.load import Load
from ridgeline_backends.neuron.serving.outcome import Outcome
from ridgeline_backends.neuron.serving.simulate import simulate
from ridgeline_backends.neuron.timing.coefficients import Coefficients
from ridgeline_backends.neuron.timing.seconds import seconds
from ridgeline_backends.neuron.timing.work import Work

RUN_S = 120.0
"""How long a benchmark sends requests, at least: guidellm's default."""

_BATCHES = 1.1
"""It runs as long as a full batch takes, prompts and all, where that is longer: less would give no
answer."""

_TRIES = 3
_AT_MOST = 2.0
"""Rounds in which steps are matched to a rate, and the most that they change."""


@dataclass(frozen=True)
class Quantity:
    """Seconds of work times a scale, or a scale over seconds.

    `field`: the row's own name for it. `domain`: with which others it shares its errors.
    """

    field: str
    domain: str
    work: Work
    scale: float
    rate: bool = False

    def predicted(self, coefficients: Coefficients) -> float:
        """In the field's own unit."""
        return self.value(seconds(self.work, coefficients))

    def value(self, seconds: float) -> float:
        return self.scale / seconds if self.rate else self.scale * seconds

    def seconds(self, value: float) -> float:
        """The inverse: how long the work took, by a measured value."""
        return self.scale / value if self.rate else value / self.scale


@dataclass(frozen=True, eq=False)
class ServingRun:
    """A server under load: one of its replicas, which all get the same. `prefill`: a prompt,
    `step`: a decode step of the whole batch, `sequence`: the host's work for each further one.
    `swept`: the run whose rate of answers the load's rate was made of."""

    prefill: Work
    step: Work
    sequence: Work
    limits: RunnerLimits
    load: Load
    swept: Load | None = None

    def outcome(self, coefficients: Coefficients) -> Outcome:
        """Simulated once for each set of coefficients."""
        return _outcome(self, coefficients)


@dataclass(frozen=True)
class Simulated:
    """A figure of a simulated run. `pick`: what of its outcome."""

    field: str
    domain: str
    run: ServingRun
    pick: Callable[[Outcome], float]
    scale: float
    rate: bool = False

    def predicted(self, coefficients: Coefficients) -> float:
        """In the field's own unit."""
        return self.scale * self.pick(self.run.outcome(coefficients))


@lru_cache(maxsize=512)
def _outcome(run: ServingRun, coefficients: Coefficients) -> Outcome:
    costs = StepCosts(
        prefill={1: seconds(run.prefill, coefficients)},
        decode={1: seconds(run.step, coefficients)},
        sequence=seconds(run.sequence, coefficients),
    )
    if run.swept is not None and run.load.rate is not None:
        costs = _carrying(run.load.rate, costs, run.limits, run.swept)
    return simulate(run.limits, costs, _long_enough(run.load, costs, run.limits))


def _carrying(rate: float, costs: StepCosts, limits: RunnerLimits, swept: Load) -> StepCosts:
    """The same steps, all shorter or longer by one factor: so that the run which the rate was taken
    from comes to it. Unchanged where that takes more than predictions are off: then it was taken
    from another."""
    matched, total = costs, 1.0
    for _ in range(_TRIES):
        found = simulate(limits, matched, _long_enough(swept, matched, limits)).requests_s
        factor = found / rate
        total *= factor
        if not 1 / _AT_MOST <= total <= _AT_MOST:
            return costs
        matched = StepCosts(
            prefill={1: matched.prefill[1] * factor},
            decode={1: matched.decode[1] * factor},
            sequence=matched.sequence * factor,
        )
    return matched


def _long_enough(load: Load, costs: StepCosts, limits: RunnerLimits) -> Load:
    step = costs.decode[1] + costs.sequence * (limits.batch_limit - 1)
    batch = costs.prefill[1] * limits.batch_limit + step * load.lengths.answer
    return replace(load, seconds=max(RUN_S, _BATCHES * batch))
