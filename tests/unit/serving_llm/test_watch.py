"""What is measured of a request: times by stage, tokens, metrics and spans, by a known clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Event

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from ridgeline_backends.device_time import (
    DeviceCall,
    DeviceTime,
    Encoded,
    Executions,
    MeteredHardware,
    SimulatedDevice,
)
from ridgeline_backends.engine import EngineOutput, EngineStats, FinishReason, SamplingParams
from ridgeline_backends.engine.api import SimulatedTimes, Times
from ridgeline_service.serving.llm.batches import BATCH, Batches, Worker, metered
from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.metrics import ModelMetrics, ReplicaMetrics
from ridgeline_service.serving.llm.observing import Observation
from ridgeline_service.serving.llm.simulated import encoded_so_far
from ridgeline_service.serving.llm.watch import NOBODY, Ended, RequestWatch, watched, watching
from ridgeline_service.telemetry.otel import OpenTelemetry
from ridgeline_service.telemetry.tracing import NO_SPAN
from ridgeline_service.usage import Usage


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


PARAMS = SamplingParams(max_tokens=8)
DEVICE = SimulatedDevice(
    instance_type="inf2.xlarge",
    cores=2,
    logical_neuroncore_config=1,
    usd_per_hour=0.9,
    label="calibrated",
)
STATS = EngineStats(
    running=2, waiting=3, free_blocks=6, total_blocks=8, steps=4, preemptions=1, prefix_queries=10,
    prefix_hits=4, drafts=2, draft_tokens=6, accepted_tokens=5, device_seconds=9.0,
    busy_seconds=10.0,
)  # fmt: skip


def output(
    *tokens: int, finish: FinishReason | None = None, times: Times | None = None
) -> EngineOutput:
    return EngineOutput(sequence_id="s", token_ids=tokens, finish_reason=finish, times=times)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replica() -> ReplicaMetrics:
    return ReplicaMetrics()


@pytest.fixture
def metrics(replica: ReplicaMetrics) -> ModelMetrics:
    return replica.open("smol", lambda: STATS)


def samples(replica: ReplicaMetrics) -> dict[str, float]:
    """Every sample without our constant labels; buckets left out."""
    found = {}
    for family in text_string_to_metric_families(replica.exposition().decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            if "le" not in labels and labels.pop("engine", "0") == "0":
                assert labels.pop("model_name", "smol") == "smol"
                found[":".join([sample.name, *labels.values()])] = sample.value
    return found


def run(watch: RequestWatch, clock: Clock, prompt: tuple[int, ...] = (1, 2, 3)) -> None:
    """1 s to the submission, 2 s queued, 3 s prefill, then tokens after 4 s and 6 s (two)."""
    clock.now += 1
    sequence = watch.submit(prompt, PARAMS)
    clock.now += 5
    sequence.received(output(7, times=Times(submitted=50, scheduled=52, first_token=55)))
    clock.now += 4
    sequence.received(output(8))
    clock.now += 6
    sequence.received(output(9, 10, finish=FinishReason.STOP))


def test_a_sequence_by_stage(replica: ReplicaMetrics, metrics: ModelMetrics, clock: Clock) -> None:
    watch = RequestWatch(metrics, clock)
    run(watch, clock)
    found = samples(replica)
    expected = {
        "time_to_first_token_seconds_sum": 6,
        "inter_token_latency_seconds_sum": 10,
        "inter_token_latency_seconds_count": 2,
        "time_per_output_token_seconds_count": 2,
        "e2e_request_latency_seconds_sum": 16,
        "request_queue_time_seconds_sum": 2,
        "request_prefill_time_seconds_sum": 3,
        "request_decode_time_seconds_sum": 10,
        "request_inference_time_seconds_sum": 13,
        "request_time_per_output_token_seconds_sum": pytest.approx(10 / 3),
        "prompt_tokens_total": 3,
        "generation_tokens_total": 4,
        "request_prompt_tokens_sum": 3,
        "request_generation_tokens_sum": 4,
        "request_params_max_tokens_sum": 8,
        "request_success_total:stop": 1,
        "request_success_total:abort": 0,
    }
    assert {name: found[f"vllm:{name}"] for name in expected} == expected
    assert watch.used == Usage(3, 4)


def test_an_engines_own_figures(replica: ReplicaMetrics, metrics: ModelMetrics) -> None:
    metrics.step(0.2, 40)
    metrics.rejected("engine_overloaded")
    found = samples(replica)
    expected = {
        "vllm:num_requests_running": 2,
        "vllm:num_requests_waiting": 3,
        "vllm:kv_cache_usage_perc": 0.25,
        "vllm:num_preemptions_total": 1,
        "vllm:prefix_cache_queries_total": 10,
        "vllm:prefix_cache_hits_total": 4,
        "vllm:spec_decode_num_drafts_total": 2,
        "vllm:spec_decode_num_draft_tokens_total": 6,
        "vllm:spec_decode_num_accepted_tokens_total": 5,
        "vllm:iteration_tokens_total_sum": 40,
        "ridgeline_compute_idle_ratio": pytest.approx(0.1),
        "ridgeline_compute_idle_seconds_total": 1,
        "ridgeline_step_seconds_sum": 0.2,
        "ridgeline_rejected_requests_total:engine_overloaded": 1,
    }
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("reason", "ended"),
    [
        (FinishReason.LENGTH, Ended.LENGTH),
        (FinishReason.CANCELLED, Ended.ABORT),
        (FinishReason.TIMEOUT, Ended.TIMEOUT),
        (FinishReason.ERROR, Ended.ERROR),
    ],
)
def test_every_end_has_its_name(metrics: ModelMetrics, clock: Clock, reason: FinishReason,
                                ended: Ended) -> None:  # fmt: skip
    sequence = RequestWatch(metrics, clock).submit((1,), PARAMS)
    sequence.received(output(finish=reason))
    assert sequence.reason is ended


def test_what_comes_after_the_end_does_not_count(
    replica: ReplicaMetrics, metrics: ModelMetrics, clock: Clock
) -> None:
    sequence = RequestWatch(metrics, clock).submit((1,), PARAMS)
    sequence.received(output(5))
    sequence.end(Ended.STOP)
    sequence.received(output(6))
    sequence.received(output(finish=FinishReason.CANCELLED))
    sequence.end(Ended.ABORT)
    found = samples(replica)
    assert sequence.tokens == 1
    assert found["vllm:request_success_total:stop"] == 1
    assert found["vllm:request_success_total:abort"] == 0


def test_a_shared_prompt_counts_once_and_an_unread_one_not_at_all(
    metrics: ModelMetrics, clock: Clock
) -> None:
    watch = RequestWatch(metrics, clock)
    run(watch, clock)
    run(watch, clock)
    watch.submit((4,) * 100, PARAMS)
    assert watch.used == Usage(3, 8)


def test_requests_are_watched_by_task(metrics: ModelMetrics, clock: Clock) -> None:
    watch = RequestWatch(metrics, clock)
    with watched(watch):
        assert watching() is watch
    assert watching() is not watch


def test_a_refusal_and_an_embedding(
    replica: ReplicaMetrics, metrics: ModelMetrics, clock: Clock
) -> None:
    watch = RequestWatch(metrics, clock)
    seen = Observation(watch, NO_SPAN, metrics, 0.0, wants_usage=True)
    assert seen.refused(BadRequest("no")).status == 400
    assert seen.refused(None).status == 500
    watch.embedded_tokens = 12
    clock.now += 0.5
    seen.end()
    found = samples(replica)
    assert found["ridgeline_rejected_requests_total:invalid_request"] == 1
    assert found["ridgeline_rejected_requests_total:internal_error"] == 1
    assert found["vllm:prompt_tokens_total"] == 12
    assert found["vllm:e2e_request_latency_seconds_sum"] == 0.5
    assert seen.usage == Usage(12, 0).encoded()


def test_spans_by_stage(metrics: ModelMetrics, clock: Clock) -> None:
    exporter = InMemorySpanExporter()
    tracing = OpenTelemetry(SimpleSpanProcessor(exporter), "replica")
    watch = RequestWatch(metrics, clock)
    seen = Observation(
        watch, tracing.request("POST /v1/completions", {}), metrics, 1e9, wants_usage=False
    )
    run(watch, clock)
    watch.sequences[0].detokenise_s = 0.25
    clock.now += 1
    seen.end()
    *stages, request = exporter.get_finished_spans()
    assert request.context is not None
    assert all(stage.parent and stage.parent.span_id == request.context.span_id for stage in stages)
    times = {
        stage.name: (stage.start_time / 1e9 - 1e9, stage.end_time / 1e9 - 1e9)
        for stage in stages
        if stage.start_time is not None and stage.end_time is not None
    }
    assert times == {
        "queue": (101, 103),
        "prefill": (103, 106),
        "decode": (106, 116),
        "detokenise": (106, 116),
    }
    assert dict(stages[3].attributes or {})["ridgeline.busy_seconds"] == 0.25
    assert dict(request.attributes or {})["gen_ai.usage.output_tokens"] == 4


def test_a_sequence_that_never_ran_has_only_waited(metrics: ModelMetrics, clock: Clock) -> None:
    exporter = InMemorySpanExporter()
    tracing = OpenTelemetry(SimpleSpanProcessor(exporter), "replica")
    watch = RequestWatch(metrics, clock)
    seen = Observation(watch, tracing.request("r", {}), metrics, 0.0, wants_usage=False)
    watch.submit((1,), PARAMS).end(Ended.ABORT)
    seen.end()
    assert [span.name for span in exporter.get_finished_spans()] == ["queue", "r"]


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
