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

RUN_S = 60.0
"""How long a benchmark sends requests, at least: the minute after which guidellm's client gives one
up (optimum-neuron's benchmark.sh)."""

_ROUNDS = 4
"""It runs as long as so many requests take that come one after the other, where that is longer."""

_BATCHES = 2
"""And as many full batches, prompts and all: less would show how it fills up, or no answer."""


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
    `step`: a decode step of the whole batch, `sequence`: the host's work for each further one."""

    prefill: Work
    step: Work
    sequence: Work
    limits: RunnerLimits
    load: Load

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
    alone = costs.prefill[1] + costs.decode[1] * run.load.lengths.answer
    batch = costs.prefill[1] * run.limits.batch_limit + costs.decode[1] * run.load.lengths.answer
    load = replace(run.load, seconds=max(RUN_S, _ROUNDS * alone, _BATCHES * batch))
    return simulate(run.limits, costs, load)
