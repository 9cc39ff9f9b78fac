"""What is measured of a request: times by stage, tokens, metrics and spans, by a known clock."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from watched import PARAMS, Clock, output, samples

from ridgeline_backends.engine import FinishReason
from ridgeline_backends.engine.api import Times
from ridgeline_service.replica_protocol import Usage
from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.metrics import ModelMetrics, ReplicaMetrics
from ridgeline_service.serving.llm.observing import Observation
from ridgeline_service.serving.llm.watch import Ended, RequestWatch, watched, watching
from ridgeline_service.telemetry.otel import OpenTelemetry
from ridgeline_service.telemetry.tracing import NO_SPAN


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
