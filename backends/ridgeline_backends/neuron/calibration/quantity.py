"""What a row's field is as a function of the coefficients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

from ridgeline.errors import InvalidInput
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

_BEHIND = 4
"""Of a rate that is far above what is carried only so many times as many requests are sent as are
answered: nobody hears of the others."""

_FULL = 1.25
"""By how much the rate that a server is predicted to carry may be too low, as steps may be too
long: a rate below that is no queue without an end."""


_LONGEST_S = 1e5
"""Nobody measures for longer."""


class NobodyAnswered(InvalidInput):
    """A run that is over, or that all clients have left, before an answer was complete."""

    code = "NobodyAnswered"


@dataclass(frozen=True)
class Quantity:
    """Seconds of work times a scale, or a scale over seconds.

    `field`: the row's own name for it. `domain`: with which others it shares its errors. `surely`:
    its work without what is inferred from one observation alone.
    """

    field: str
    domain: str
    work: Work
    scale: float
    rate: bool = False
    surely: Work | None = None

    def predicted(self, coefficients: Coefficients) -> float:
        """In the field's own unit."""
        return self.value(seconds(self.work, coefficients))

    def without(self) -> Quantity | None:
        """The same without what is inferred: its interval reaches so far."""
        return None if self.surely is None else replace(self, work=self.surely, surely=None)

    def value(self, seconds: float) -> float:
        return self.scale / seconds if self.rate else self.scale * seconds

    def seconds(self, value: float) -> float:
        """The inverse: how long the work took, by a measured value."""
        return self.scale / value if self.rate else value / self.scale


@dataclass(frozen=True, eq=False)
class ServingRun:
    """A server under load: one of its replicas, which all get the same. `prefill`: a prompt,
    `step`: a decode step of the whole batch, `sequence`: the host's work for each further one.
    `full`: all clients at once, where the load has a rate. `swept`: what that run came to is what
    the load's rate was made of; else somebody chose it. `surely`: the same without what is inferred
    from one observation alone."""

    prefill: Work
    step: Work
    sequence: Work
    limits: RunnerLimits
    load: Load
    full: Load | None = None
    swept: bool = False
    surely: ServingRun | None = None

    def outcome(self, coefficients: Coefficients) -> Outcome:
        """Simulated once for each set of coefficients. Raises `NobodyAnswered`."""
        found = _outcome(self, coefficients)
        if not found.answered:
            raise NobodyAnswered("No request is answered before clients give up.")
        return found


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
        """In the field's own unit. Raises `NobodyAnswered`."""
        return self.scale * self.pick(self.run.outcome(coefficients))

    def without(self) -> Simulated | None:
        """The same without what is inferred: its interval reaches so far."""
        return None if self.run.surely is None else replace(self, run=self.run.surely)


def reaching(
    one: Quantity | Simulated, coefficients: Coefficients, low: float, high: float
) -> tuple[float, float]:
    """An interval, as wide as to hold what is predicted without what is inferred."""
    without = one.without()
    if without is None:
        return low, high
    end = without.predicted(coefficients)
    return min(low, end), max(high, end)


@lru_cache(maxsize=512)
def _outcome(run: ServingRun, coefficients: Coefficients) -> Outcome:
    costs = StepCosts(
        prefill={1: seconds(run.prefill, coefficients)},
        decode={1: seconds(run.step, coefficients)},
        sequence=seconds(run.sequence, coefficients),
    )
    load, full = run.load, run.full
    _refuse_endless(run, costs)
    if load.rate is None or full is None:
        return simulate(run.limits, costs, _long_enough(load, costs, run.limits))
    matched = _carrying(load.rate, costs, run.limits, full) if run.swept else None
    if matched is None:
        return _at_rate(load, costs, run.limits, full)
    return simulate(run.limits, matched, _long_enough(load, matched, run.limits))


def _refuse_endless(run: ServingRun, costs: StepCosts) -> None:
    """Raises `NobodyAnswered` for a run of which that is known without simulating it."""
    prompt, patience = costs.prefill[1], run.load.timeout_s
    if patience is not None and prompt > patience:
        raise NobodyAnswered(
            f"No request is answered: a prompt takes {prompt:.0f} s, and clients give up after "
            f"{patience:.0f} s."
        )
    whole = _long_enough(run.load, costs, run.limits).seconds or 0.0
    if whole > _LONGEST_S:
        raise NobodyAnswered(f"No request is answered: a full batch takes {whole:.0f} s.")


def _at_rate(load: Load, costs: StepCosts, limits: RunnerLimits, full: Load) -> Outcome:
    """A rate that was chosen: more of it never makes anybody's answer sooner. One just above what
    is predicted to be carried counts as that."""
    assert load.rate is not None
    carried = _carried(costs, limits, full)
    if carried < load.rate <= _FULL * carried:
        load = replace(load, rate=carried)
    load = _long_enough(load, costs, limits)
    answered = carried * (load.seconds or RUN_S)
    load = replace(load, requests=ceil(_BEHIND * answered) + limits.batch_limit)
    return simulate(limits, costs, load)


def _carrying(rate: float, costs: StepCosts, limits: RunnerLimits, full: Load) -> StepCosts | None:
    """The same steps, all shorter or longer by one factor: so that the run which the rate was taken
    from comes to it. None where that takes more than predictions are off: then it was taken from
    another."""
    matched, total = costs, 1.0
    for _ in range(_TRIES):
        factor = _carried(matched, limits, full) / rate
        total *= factor
        if not 1 / _AT_MOST <= total <= _AT_MOST:
            return None
        matched = StepCosts(
            prefill={1: matched.prefill[1] * factor},
            decode={1: matched.decode[1] * factor},
            sequence=matched.sequence * factor,
        )
    return matched


def _carried(costs: StepCosts, limits: RunnerLimits, full: Load) -> float:
    """Requests a second with all clients at once."""
    return simulate(limits, costs, _long_enough(full, costs, limits)).requests_s


def _long_enough(load: Load, costs: StepCosts, limits: RunnerLimits) -> Load:
    step = costs.decode[1] + costs.sequence * (limits.batch_limit - 1)
    answer = min(load.lengths.answer, limits.max_model_len)
    batch = costs.prefill[1] * limits.batch_limit + step * answer
    return replace(load, seconds=max(RUN_S, _BATCHES * batch))
