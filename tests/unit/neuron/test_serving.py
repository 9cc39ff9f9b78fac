"""Serving on a virtual clock: what is skipped changes nothing, and the engine agrees."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ridgeline_backends.base import (
    ModelRunner,
    PagedLayout,
    RunnerLimits,
    SampledToken,
    SlotLayout,
    Step,
    StepResult,
)
from ridgeline_backends.device_time import DeviceTime
from ridgeline_backends.engine import LLMEngine
from ridgeline_backends.engine.api import EngineOutput, FinishReason, SamplingParams
from ridgeline_backends.neuron.serving.costs import StepCosts
from ridgeline_backends.neuron.serving.load import SECOND, Lengths, Load
from ridgeline_backends.neuron.serving.outcome import Answered, Outcome
from ridgeline_backends.neuron.serving.simulate import simulate

COSTS = StepCosts(
    prefill={64: 0.02, 128: 0.03, 256: 0.07},
    decode={64: 0.007, 128: 0.008, 256: 0.011},
    sequence=0.0003,
)


def slots(count: int) -> RunnerLimits:
    return RunnerLimits(
        max_model_len=256,
        max_tokens=256,
        max_sequences=count,
        kv_layout=SlotLayout(256, count),
        mixed_phases=False,
        chunked_prefill=False,
        sequence_buckets=(64, 128, 256),
    )


def pages(count: int, blocks: int, *, mixed: bool) -> RunnerLimits:
    return RunnerLimits(
        max_model_len=256,
        max_tokens=256,
        max_sequences=count,
        kv_layout=PagedLayout(16, blocks),
        mixed_phases=mixed,
        chunked_prefill=False,
    )


LIMITS = st.one_of(
    st.integers(1, 5).map(slots),
    st.builds(pages, st.integers(1, 5), st.integers(16, 40), mixed=st.booleans()),
)
LENGTHS = st.builds(
    Lengths,
    prompt=st.integers(1, 150),
    answer=st.integers(1, 60),
    prompt_spread=st.sampled_from([0.0, 9.0]),
    answer_spread=st.sampled_from([0.0, 9.0]),
)
LOADS = st.one_of(
    st.builds(
        Load,
        lengths=LENGTHS,
        rate=st.floats(0.5, 30),
        arrivals=st.sampled_from(["poisson", "fixed"]),
        requests=st.integers(1, 25),
        seconds=st.sampled_from([None, 1.5]),
        timeout_s=st.sampled_from([None, 0.4, 2.0]),
        seed=st.integers(0, 99),
    ),
    st.builds(
        Load,
        lengths=LENGTHS,
        clients=st.integers(1, 9),
        requests=st.integers(1, 25),
        seconds=st.sampled_from([None, 1.5]),
        timeout_s=st.sampled_from([None, 0.4, 2.0]),
        pause_s=st.sampled_from([0.0, 0.013, 0.2]),
        tick_s=st.sampled_from([0.0, 0.1]),
        seed=st.integers(0, 99),
    ),
)


LAST_OF_SIX = Load(lengths=Lengths(prompt=1, answer=21), clients=2, requests=6, tick_s=0.1, seed=0)
"""The last request is sent at 0.7 s, during a leap, at the end of which the other client asks."""


@settings(max_examples=60, deadline=None)
@given(LIMITS, LOADS, st.booleans())
@example(slots(1), LAST_OF_SIX, False)
def test_skipping_changes_nothing(limits: RunnerLimits, load: Load, streamed: bool) -> None:
    load = replace(load, streamed=streamed)
    assert simulate(limits, COSTS, load) == simulate(limits, COSTS, load, skip=False)


@settings(max_examples=40, deadline=None)
@given(LIMITS, LOADS)
def test_the_engine_takes_the_same_time(limits: RunnerLimits, load: Load) -> None:
    """`LLMEngine`, with a runner that lets the clock go on, is what the simulation stands for."""
    found = simulate(limits, COSTS, replace(load, seconds=None))
    assert _served(limits, replace(load, seconds=None)) == found


def test_more_load_means_longer_waits_and_the_rate_is_kept_below_capacity() -> None:
    lengths = Lengths(prompt=100, answer=50)
    calm, busy = (
        simulate(slots(4), COSTS, Load(lengths=lengths, rate=rate, requests=300, seed=3))
        for rate in (1.0, 6.0)
    )
    assert calm.requests_s == pytest.approx(1.0, rel=0.15)
    assert calm.utilisation < busy.utilisation
    assert calm.ttft(0.5) == pytest.approx(0.03, rel=0.2)
    assert calm.ttft(0.9) < busy.ttft(0.9)
    assert calm.gap(0.5) <= busy.gap(0.5) <= busy.gap(0.99)


def test_a_client_alone_gets_what_steps_take() -> None:
    load = Load(lengths=Lengths(prompt=10, answer=20), clients=1, requests=3)
    found = simulate(slots(2), COSTS, load)
    assert [one.tokens for one in found.answered] == [20, 20, 20]
    assert found.ttft_mean == pytest.approx(0.02)
    assert found.tpot_mean == found.gap(0.99) == pytest.approx(0.007)
    assert found.requests_s == pytest.approx(1 / (0.02 + 19 * 0.007))
    assert found.utilisation == 1.0


def test_an_impatient_client_is_not_answered() -> None:
    load = Load(lengths=Lengths(prompt=10, answer=100), clients=3, requests=9, timeout_s=0.5)
    found = simulate(slots(1), COSTS, load)
    assert (found.answered, found.given_up) == ((), 9)
    assert (found.requests_s, found.tokens_s, found.ttft(0.5)) == (0, 0, 0)


def test_a_client_that_sees_tokens_stays() -> None:
    load = Load(lengths=Lengths(prompt=10, answer=100), clients=3, requests=3, timeout_s=0.5)
    found = simulate(slots(2), COSTS, replace(load, streamed=True))
    assert (len(found.answered), found.given_up) == (2, 1)


def test_a_client_that_pauses_sends_at_its_ticks() -> None:
    load = Load(lengths=Lengths(prompt=10, answer=2), clients=1, requests=3, pause_s=0.05)
    sent = [
        [one.sent / SECOND for one in simulate(slots(1), COSTS, each).answered]
        for each in (load, replace(load, tick_s=0.1))
    ]
    assert sent == [pytest.approx([0, 0.077, 0.154]), pytest.approx([0, 0.1, 0.2])]


def test_two_thousand_requests_a_second() -> None:
    load = Load(lengths=Lengths(prompt=128, answer=128), rate=4.0, requests=2000)
    limits = replace(slots(32), max_model_len=256)
    begin = time.process_time()
    found = simulate(limits, COSTS, load)
    assert len(found.answered) == 2000
    assert time.process_time() - begin < 1.0


@dataclass
class _Clock:
    now: int = 0


class _TimedRunner(ModelRunner):
    def __init__(self, limits: RunnerLimits, clock: _Clock) -> None:
        self._limits, self._clock = limits, clock
        self.busy = 0
        self.steps = 0

    @property
    def limits(self) -> RunnerLimits:
        return self._limits

    @property
    def vocab_size(self) -> int:
        return 1000

    @property
    def eos_token_ids(self) -> frozenset[int]:
        return frozenset()

    def execute(self, step: Step) -> StepResult:
        took = COSTS.step_ns(step)
        self._clock.now += took
        self.busy += took
        self.steps += 1
        tokens = tuple(SampledToken(0) for _ in step.samples)
        return StepResult(tokens=tokens, device_time=DeviceTime(seconds=took / SECOND))


class _Client:
    """Sends requests to an engine, and writes down when tokens came."""

    def __init__(self, limits: RunnerLimits, load: Load) -> None:
        self.clock = _Clock()
        self.runner = _TimedRunner(limits, self.clock)
        self.engine = LLMEngine(
            self.runner, max_waiting=10_000, clock=lambda: self.clock.now, seeds=lambda: 0
        )
        self.load, self.sizes, self.times = load, load.sizes(), load.times()
        self.later: deque[int] = deque()
        self.left = load.requests or 0
        self.open = 0
        self.sent = 0
        self.answered: list[Answered] = []
        self.gaps: Counter[int] = Counter()
        self.given_up = 0

    def send(self, at: int) -> None:
        if not self.left:
            return
        self.left -= 1
        self.open += 1
        prompt, answer = next(self.sizes)
        number, self.sent = self.sent, self.sent + 1
        # Prompts of strangers: none shares a block with another.
        tokens = [number] * prompt
        self.engine.submit(
            str(number),
            tokens,
            SamplingParams(max_tokens=answer, temperature=0.0),
            self._sink(at),
            timeout_s=None
            if self.load.timeout_ns is None
            else self.load.timeout_ns - (self.clock.now - at),
        )

    def _sink(self, at: int) -> Callable[[EngineOutput], None]:
        seen: list[int] = []

        def sink(output: EngineOutput) -> None:
            now = self.clock.now
            if output.token_ids:
                if seen:
                    self.gaps[now - seen[-1]] += 1
                seen.append(now)
            if output.finish_reason is None:
                return
            self.open -= 1
            if output.finish_reason is FinishReason.TIMEOUT:
                self.given_up += 1
            else:
                assert output.finish_reason is FinishReason.LENGTH
                self.answered.append(Answered(at, seen[0], now, len(seen)))
            if self.load.clients is not None:
                again = self.load.again_ns(now)
                if again <= now:
                    self.send(now)
                else:
                    self.later.append(again)

        return sink

    def coming(self) -> int | None:
        """When the next request is sent, as far as that is known."""
        at = next(self.times, None)
        return self.later.popleft() if at is None and self.later else at


def _served(limits: RunnerLimits, load: Load) -> Outcome:
    client = _Client(limits, load)
    at = client.coming()
    while True:
        at = client.coming() if at is None else at
        while at is not None and at <= client.clock.now and client.left:
            client.send(at)
            at = client.coming()
        if not client.open:
            if not client.left or at is None:
                break
            client.clock.now = at
            continue
        client.engine.step()
        client.engine.check_integrity()
    runner = client.runner
    return Outcome(tuple(client.answered), client.gaps, runner.steps, client.given_up, runner.busy)
