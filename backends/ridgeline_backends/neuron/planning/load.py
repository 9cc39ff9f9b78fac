"""How many instances a rate of requests takes: simulated, each group of cores a replica."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from ridgeline_backends.base import RunnerLimits, SlotLayout
from ridgeline_backends.neuron.serving.costs import StepCosts
from ridgeline_backends.neuron.serving.load import Lengths, Load
from ridgeline_backends.neuron.serving.outcome import Outcome
from ridgeline_backends.neuron.serving.simulate import simulate

REQUESTS = 120
"""Of a simulated run: enough for a 90th percentile."""

_MORE = (1.0, 1.15, 1.35, 1.6, 2.0, 3.0)
"""Times the instances that the rate takes on average: a queue wants room."""
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
    """Instances, each with `copies` of the model, that keep the limits: `at_least` so many, or of a
    few larger numbers the first; None if three times as many do not help."""
    counts = sorted({ceil(at_least * more) for more in _MORE})
    lengths = Lengths(prompt=wanted.prompt, answer=wanted.answer)

    def tried(instances: int) -> Loaded | None:
        rate = wanted.rps / (instances * copies)
        found = _replica(lengths, prefill_s, step_s, batch, rate)
        if not _kept(found, wanted, rate):
            return None
        return Loaded(
            instances=instances,
            ttft_p90=found.ttft(0.9),
            tpot=found.tpot_mean,
            utilisation=found.utilisation,
        )

    least = tried(counts[0])
    if least is not None:
        return least
    # What most do not keep none does.
    most = tried(counts[-1])
    too_few, enough = 0, len(counts) - 1
    while most is not None and enough - too_few > 1:
        middle = (too_few + enough) // 2
        found = tried(counts[middle])
        if found is None:
            too_few = middle
        else:
            most, enough = found, middle
    return most


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
