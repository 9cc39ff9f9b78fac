"""How many instances a rate of requests takes: simulated, each group of cores a replica."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ridgeline_backends.base import RunnerLimits, SlotLayout
from ridgeline_backends.neuron.serving.costs import StepCosts
from ridgeline_backends.neuron.serving.load import Lengths, Load
from ridgeline_backends.neuron.serving.outcome import Outcome
from ridgeline_backends.neuron.serving.simulate import simulate

REQUESTS = 120
"""Of a simulated run: enough for a 90th percentile."""

_TRIES = 3
_KEPT = 0.9
"""A replica that answers a smaller share of the rate than this falls behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What clients see at the wanted rate. Seconds; `ttft_p90`: nine of ten wait no longer."""

    instances: int
    ttft_p90: float
    tpot: float
    utilisation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Of all instances together; limits in seconds, None: no matter."""

    rps: float
    prompt: int
    answer: int
    ttft_s: float | None
    tpot_s: float | None


def under_load(
    wanted: Wanted, *, prefill_s: float, step_s: float, batch: int, copies: int, at_least: int
) -> Loaded | None:
    """The fewest instances, each with `copies` of the model, that keep the limits, `at_least` so
    many; None if a few more do not help."""
    for instances in range(at_least, at_least + _TRIES):
        rate = wanted.rps / (instances * copies)
        lengths = Lengths(prompt=wanted.prompt, answer=wanted.answer)
        found = _replica(lengths, prefill_s, step_s, batch, rate)
        if _kept(found, wanted, rate):
            return Loaded(
                instances=instances,
                ttft_p90=found.ttft(0.9),
                tpot=found.tpot_mean,
                utilisation=found.utilisation,
            )
    return None


@lru_cache(maxsize=256)
def _replica(lengths: Lengths, prefill_s: float, step_s: float, batch: int, rate: float) -> Outcome:
    """Of one at its share of the rate. Types that differ in their network alone answer alike."""
    length = lengths.prompt + lengths.answer
    limits = RunnerLimits(
        max_model_len=length,
        max_tokens=max(length, batch),
        max_sequences=batch,
        kv_layout=SlotLayout(length, batch),
        mixed_phases=False,
        chunked_prefill=False,
        sequence_buckets=(length,),
    )
    costs = StepCosts(prefill={length: prefill_s}, decode={length: step_s})
    return simulate(limits, costs, Load(lengths=lengths, rate=rate, requests=REQUESTS))


def _kept(found: Outcome, wanted: Wanted, rate: float) -> bool:
    # The last answers come when no more requests do: that much of the run is no part of the rate.
    sending = REQUESTS / rate
    keeps_up = found.seconds < sending / _KEPT + found.latency(1.0)
    in_time = wanted.ttft_s is None or found.ttft(0.9) <= wanted.ttft_s
    return keeps_up and in_time and (wanted.tpot_s is None or found.tpot_mean <= wanted.tpot_s)
