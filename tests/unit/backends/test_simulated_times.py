"""A sequence's time on a simulated device: its own steps and those that it waited for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ridgeline_backends.base import (
    Step,
    StepResult,
)
from ridgeline_backends.device_time import DeviceTime, SimulatedDevice
from ridgeline_backends.engine import EngineOutput, LLMEngine, SamplingParams
from ridgeline_backends.testing import FakeRunner, paged_limits

DEVICE = SimulatedDevice(
    instance_type="inf2.xlarge",
    cores=2,
    logical_neuroncore_config=1,
    usd_per_hour=3.6,
    label="calibrated",
)
PARAMS = SamplingParams(max_tokens=3, temperature=0, seed=1, ignore_eos=True)


class Simulated(FakeRunner):
    """Each step is predicted to take 2 s, surely between 1 s and 4 s, a quarter of it exchange."""

    @property
    def simulates(self) -> SimulatedDevice:
        return DEVICE

    def execute(self, step: Step) -> StepResult:
        time = DeviceTime(seconds=2.0, low=1.0, high=4.0, collective_seconds=0.5, peak_seconds=0.25)
        return replace(super().execute(step), device_time=time)


def test_the_first_token_waits_for_the_steps_of_others() -> None:
    engine = LLMEngine(Simulated(paged_limits()))
    news: dict[str, list[EngineOutput]] = {"a": [], "b": []}
    engine.submit("a", [1, 2, 3], PARAMS, news["a"].append)
    assert engine.step()
    engine.submit("b", [4, 5], PARAMS, news["b"].append)
    while engine.step():
        pass
    # "a" alone, both twice, "b" alone.
    first, *_, last = (one.simulated for one in news["a"])
    assert first is not None
    assert last is not None
    assert (first.first_token.seconds, first.total.seconds) == (2.0, 2.0)
    assert last.total == DeviceTime(
        seconds=6.0, low=3.0, high=12.0, collective_seconds=1.5, peak_seconds=0.75
    )
    assert last.own_seconds == pytest.approx(2.0 + 1.0 + 1.0)
    second = news["b"][-1].simulated
    assert second is not None
    assert (second.first_token.seconds, second.total.seconds) == (2.0, 6.0)
    assert second.own_seconds == pytest.approx(1.0 + 1.0 + 2.0)
    assert engine.stats().simulates == DEVICE
    assert engine.stats().simulated == DeviceTime(
        seconds=8.0, low=4.0, high=16.0, collective_seconds=2.0, peak_seconds=1.0
    )


def test_a_measured_device_has_no_other_time() -> None:
    engine = LLMEngine(FakeRunner(paged_limits()))
    news: list[EngineOutput] = []
    engine.submit("a", [1, 2, 3], PARAMS, news.append)
    while engine.step():
        pass
    assert [one.simulated for one in news] == [None] * 3
    assert engine.stats().simulated is None
