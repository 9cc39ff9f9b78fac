"""What an answer would have taken on a simulated device: in headers, metrics and descriptions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from threading import Event

import pytest
from watched import PARAMS, STATS, Clock, output, samples

from ridgeline_backends.device_time import (
    DeviceCall,
    DeviceTime,
    Encoded,
    Executions,
    MeteredHardware,
    SimulatedDevice,
)
from ridgeline_backends.engine import FinishReason
from ridgeline_backends.engine.api import SimulatedTimes
from ridgeline_service.serving.llm.batches import BATCH, Batches, Worker, metered
from ridgeline_service.serving.llm.metrics import ModelMetrics, ReplicaMetrics
from ridgeline_service.serving.llm.observing import Observation
from ridgeline_service.serving.llm.simulated import encoded_so_far
from ridgeline_service.serving.llm.watch import NOBODY, RequestWatch, watched
from ridgeline_service.telemetry.tracing import NO_SPAN

DEVICE = SimulatedDevice(
    instance_type="inf2.xlarge",
    cores=2,
    logical_neuroncore_config=1,
    usd_per_hour=0.9,
    label="calibrated",
)


def test_an_answer_says_what_it_would_have_taken_on_the_simulated_device(
    clock: Clock, metrics: ModelMetrics, replica: ReplicaMetrics
) -> None:
    """2 s to the first token and 1 s for each of two more; a third of the second is the price."""
    first = DeviceTime(seconds=2.0, low=1.0, high=3.0)
    total = DeviceTime(seconds=4.0, low=2.0, high=6.0, collective_seconds=1.0, peak_seconds=0.04)
    times = SimulatedTimes(device=DEVICE, first_token=first, total=total, own_seconds=1.2)
    watch = RequestWatch(metrics, clock)
    observed = Observation(watch, NO_SPAN, metrics, 0.0, wants_usage=False)
    sequence = watch.submit((1, 2), PARAMS)
    assert observed.simulated == {}
    sequence.received(replace(output(5), simulated=replace(times, total=first)))
    end = replace(output(6, 7, finish=FinishReason.LENGTH), simulated=times)
    sequence.received(end)
    [header] = observed.simulated.values()
    assert json.loads(header) == {
        "instance_type": "inf2.xlarge",
        "neuron_cores": 2,
        "logical_neuroncore_config": 1,
        "time_to_first_token_s": {"seconds": 2.0, "low": 1.0, "high": 3.0},
        "time_per_output_token_s": {"seconds": 1.0, "low": 0.5, "high": 1.5},
        "core_utilization": 0.01,
        "collective_share": 0.25,
        "label": "calibrated",
        "usd_per_million_tokens": 100.0,
    }
    found = samples(replica)
    assert found["ridgeline_simulated_time_to_first_token_seconds_sum"] == 2.0
    # Several sequences overlap: no one time is theirs.
    watch.submit((1, 2), PARAMS)
    assert observed.simulated == {}


def test_metrics_tell_of_the_simulated_device(replica: ReplicaMetrics) -> None:
    device = SimulatedDevice(
        instance_type="inf2.xlarge",
        cores=2,
        logical_neuroncore_config=1,
        usd_per_hour=3.6,
        label="calibrated",
    )
    total = DeviceTime(seconds=10.0, low=8.0, high=12.0, collective_seconds=4.0, peak_seconds=1.0)
    replica.open(
        "smol",
        lambda: replace(STATS, generated_tokens=100, simulates=device, simulated=total),
    )
    found = samples(replica)
    assert found["ridgeline_simulated_device_seconds"] == 10.0
    assert found["ridgeline_simulated_core_utilization"] == pytest.approx(0.1)
    assert found["ridgeline_simulated_collective_share"] == pytest.approx(0.4)
    assert found["ridgeline_simulated_usd_per_million_tokens"] == pytest.approx(100.0)


def test_a_copy_pays_for_its_share_of_the_instance() -> None:
    assert DEVICE.usd(7200.0) == pytest.approx(2 * (DEVICE.usd_per_hour or 0))
    assert replace(DEVICE, copies=4).usd(7200.0) == pytest.approx((DEVICE.usd_per_hour or 0) / 2)
    assert replace(DEVICE, usd_per_hour=None).usd(7200.0) is None


class Encoder(MeteredHardware):
    """A second for each call, surely between a half and two; nothing runs before `gate` opens."""

    def __init__(self) -> None:
        self.gate = Event()
        self._calls = 0

    @property
    def simulates(self) -> SimulatedDevice:
        return DEVICE

    @property
    def spent(self) -> DeviceTime:
        seconds = float(self._calls)
        return DeviceTime(seconds=seconds, low=seconds / 2, high=seconds * 2)

    @property
    def executions(self) -> Executions:
        call = DeviceCall(phase="encoding", bucket=128, batch=1, time=DeviceTime(seconds=1.0))
        return Executions(completed={call: self._calls}, failed={"NRT_TIMEOUT": 2})

    @property
    def encoded(self) -> Encoded:
        return Encoded(texts=self._calls, tokens=5 * self._calls)

    @property
    def broken(self) -> str:
        return ""

    def break_down(self, kind: str, *, after: int = 0, every: int = 0) -> None: ...

    def embed(self, texts: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        assert self.gate.wait(20)
        self._calls += 1
        return list(texts)


async def test_texts_say_what_they_would_have_taken_waiting_for_others_included() -> None:
    """The second request waits for the first one's second, and pays for its own two calls alone."""
    runner = Encoder()
    queue = Batches([Worker(runner.embed, metered(runner))], len, max_waiting=4)
    counts = (1, BATCH + 1)
    clock = Clock()
    seen = [
        Observation(RequestWatch(NOBODY, clock), NO_SPAN, None, 0.0, wants_usage=False)
        for _ in counts
    ]

    async def request(one: Observation, texts: int) -> None:
        with watched(one.watch):
            await queue.each([[7] * 5] * texts)
            one.watch.embedded_tokens += 5 * texts

    try:
        assert seen[0].simulated == {}
        tasks = [asyncio.ensure_future(request(*one)) for one in zip(seen, counts, strict=True)]
        while queue.waiting < 2:
            await asyncio.sleep(0)
        runner.gate.set()
        await asyncio.gather(*tasks)
    finally:
        queue.close()
    first, second = (json.loads(*one.simulated.values()) for one in seen)
    assert first["time_to_answer_s"] == {"seconds": 1.0, "low": 0.5, "high": 2.0}
    assert second["time_to_answer_s"] == {"seconds": 3.0, "low": 1.5, "high": 6.0}
    assert second["usd_per_million_tokens"] == pytest.approx(2 * 0.9 / 3600 / 85 * 1e6, abs=1e-4)
    assert {**first, **second}["label"] == "calibrated"
    assert runner.executions.total == 3


async def test_texts_on_several_copies_wait_for_a_free_one_alone() -> None:
    """Three requests of a second each on two copies: the third waits for one of the others."""
    copies = (Encoder(), Encoder())
    queue = Batches([Worker(one.embed, metered(one)) for one in copies], len, max_waiting=4)
    clock = Clock()
    seen = [
        Observation(RequestWatch(NOBODY, clock), NO_SPAN, None, 0.0, wants_usage=False)
        for _ in range(3)
    ]

    async def request(one: Observation) -> None:
        with watched(one.watch):
            await queue.each([[7] * 5])
            one.watch.embedded_tokens += 5

    try:
        tasks = [asyncio.ensure_future(request(one)) for one in seen]
        while queue.waiting < 3:
            await asyncio.sleep(0)
        for one in copies:
            one.gate.set()
        await asyncio.gather(*tasks)
    finally:
        queue.close()
    told = sorted(
        json.loads(*one.simulated.values())["time_to_answer_s"]["seconds"] for one in seen
    )
    assert told == [1.0, 1.0, 2.0]
    assert [one.executions.total for one in copies] == [2, 1]


def test_metrics_tell_of_a_simulated_device_without_an_engine(replica: ReplicaMetrics) -> None:
    runner = Encoder()
    runner.gate.set()
    replica.open("smol", None, runner)
    runner.embed([[1]])
    found = samples(replica)
    assert found["ridgeline_simulated_device_seconds"] == 1.0
    assert found["ridgeline_steps_total"] == 1.0
    text = replica.exposition().decode()
    assert "ridgeline_simulated_device_info{" in text
    program = '{batch="1",bucket="128",phase="encoding"}'
    assert f"ridgeline_simulated_executions_total{program} 1.0" in text
    assert f"ridgeline_simulated_execution_seconds{program} 1.0" in text
    assert 'ridgeline_simulated_execution_errors_total{code="NRT_TIMEOUT"} 2.0' in text
    assert 'ridgeline_process_cpu_seconds_total{mode="system"}' in text


def test_texts_so_far_are_told_with_their_price() -> None:
    runner = Encoder()
    runner.gate.set()
    assert encoded_so_far(runner) == {}
    runner.embed([[1]])
    assert encoded_so_far(runner)["so_far"] == {
        "steps": 1,
        "texts": 1,
        "encoded_tokens": 5,
        "device_seconds": 1.0,
        "core_utilization": 0.0,
        "collective_share": 0.0,
        "usd_per_million_tokens": pytest.approx(0.9 / 3600 / 5 * 1e6),
    }
