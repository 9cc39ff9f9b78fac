"""Prometheus metrics of a replica, under vLLM's names where vLLM has them.

So dashboards and alerts made for vLLM read this server as they are. Names that begin with
``ridgeline_`` are for what vLLM does not report. Engine-wide figures are read from the engine's own
statistics when a scrape asks; figures of requests are observed as they happen.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from ridgeline_backends.device_time import (
    DeviceTime,
    MeteredHardware,
    SimulatedDevice,
    SimulatedHardware,
)
from ridgeline_backends.engine import EngineStats
from ridgeline_backends.engine.api import SimulatedTimes
from ridgeline_service.serving.llm.watch import Ended, SequenceWatch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LABELS = ("model_name", "engine")
_ENGINE = "0"
"""One replica has one engine. vLLM's dashboards group by this label."""

# vLLM's buckets, with finer ones below: small models answer faster than its first bucket.
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
          10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)  # fmt: skip
_NEXT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0,
         2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)  # fmt: skip
_REQUEST = (0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0,
            50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0)  # fmt: skip
_LENGTH = tuple(float(m * 10**e) for e in range(6) for m in (1, 2, 5))
_STEP = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STEP_TOKENS = (1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0)

_HISTOGRAMS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "vllm:time_to_first_token_seconds": ("Arrival of a request to its first token.", _FIRST),
    "vllm:inter_token_latency_seconds": ("Time between two outputs of a sequence.", _NEXT),
    "vllm:time_per_output_token_seconds": ("The same, under its older name.", _NEXT),
    "vllm:request_time_per_output_token_seconds": ("Mean of a sequence after its first.", _NEXT),
    "vllm:e2e_request_latency_seconds": ("Arrival of a request to its end.", _REQUEST),
    "vllm:request_queue_time_seconds": ("Submission to the first step.", _REQUEST),
    "vllm:request_prefill_time_seconds": ("First step to the first token.", _REQUEST),
    "vllm:request_decode_time_seconds": ("First token to the last.", _REQUEST),
    "vllm:request_inference_time_seconds": ("First step to the last token.", _REQUEST),
    "vllm:request_prompt_tokens": ("Tokens of a prompt.", _LENGTH),
    "vllm:request_generation_tokens": ("Tokens generated for a sequence.", _LENGTH),
    "vllm:request_params_max_tokens": ("Tokens that a sequence may have.", _LENGTH),
    "vllm:iteration_tokens_total": ("Tokens computed in a step of the engine.", _STEP_TOKENS),
    "ridgeline_simulated_time_to_first_token_seconds": (
        "The same on the device that the replica stands for.",
        _FIRST,
    ),
    "ridgeline_simulated_time_per_output_token_seconds": (
        "Mean of a sequence after its first, on the device that the replica stands for.",
        _NEXT,
    ),
    "ridgeline_step_seconds": ("Duration of a step of the engine.", _STEP),
}
_COUNTERS: Mapping[str, str] = {
    "vllm:prompt_tokens": "Tokens of prompts, cached ones included.",
    "vllm:generation_tokens": "Tokens generated.",
}


class ReplicaMetrics:
    """The registry of one replica. Until ``open`` it has the process's own metrics only."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def open(
        self,
        model_name: str,
        stats: Callable[[], EngineStats] | None,
        hardware: SimulatedHardware | None = None,
    ) -> ModelMetrics:
        """Metrics of the loaded model. ``stats`` reads its engine, if it has one; ``hardware`` is
        what it runs on, where that is simulated."""
        labels = (model_name, _ENGINE)
        if hardware is not None:
            self._registry.register(ExecutionsCollector(hardware))
        if isinstance(hardware, MeteredHardware):
            self._registry.register(HardwareCollector(labels, hardware))
        if stats is not None:
            self._registry.register(EngineCollector(labels, stats))
        return ModelMetrics(self._registry, labels)

    def exposition(self) -> bytes:
        """What a Prometheus server scrapes."""
        return generate_latest(self._registry)


class ModelMetrics:
    """What is observed of requests: a `watch.Recorder`."""

    def __init__(self, registry: CollectorRegistry, labels: tuple[str, str]) -> None:
        self._labels = labels
        self._histograms = {
            name: Histogram(name, words, _LABELS, buckets=buckets, registry=registry).labels(
                *labels
            )
            for name, (words, buckets) in _HISTOGRAMS.items()
        }
        self._counters = {
            name: Counter(name, words, _LABELS, registry=registry).labels(*labels)
            for name, words in _COUNTERS.items()
        }
        success = Counter(
            "vllm:request_success",
            "Sequences that ended, by reason.",
            (*_LABELS, "finished_reason"),
            registry=registry,
        )
        self._ended = {reason: success.labels(*labels, reason.value) for reason in Ended}
        self._rejected = Counter(
            "ridgeline_rejected_requests",
            "Requests answered with an error, by its code.",
            (*_LABELS, "reason"),
            registry=registry,
        )

    def first_token(self, sequence: SequenceWatch) -> None:
        assert sequence.first is not None
        self._observe("time_to_first_token_seconds", sequence.first - sequence.request.began)
        self._counters["vllm:prompt_tokens"].inc(len(sequence.prompt))
        self._counters["vllm:generation_tokens"].inc(sequence.tokens)

    def next_tokens(self, sequence: SequenceWatch, count: int, seconds: float) -> None:
        self._observe("inter_token_latency_seconds", seconds)
        self._observe("time_per_output_token_seconds", seconds)
        self._counters["vllm:generation_tokens"].inc(count)

    def ended(self, sequence: SequenceWatch) -> None:
        assert sequence.reason is not None
        assert sequence.finished is not None
        self._ended[sequence.reason].inc()
        self._observe("e2e_request_latency_seconds", sequence.finished - sequence.request.began)
        self._observe("request_prompt_tokens", len(sequence.prompt))
        self._observe("request_generation_tokens", sequence.tokens)
        self._observe("request_params_max_tokens", sequence.max_tokens)
        if sequence.simulated is not None:
            self._simulated(sequence.simulated, sequence.tokens)
        first, last, scheduled = sequence.first, sequence.last, sequence.scheduled
        if first is None or last is None or scheduled is None:
            return
        self._observe("request_queue_time_seconds", scheduled - sequence.submitted)
        self._observe("request_prefill_time_seconds", first - scheduled)
        self._observe("request_decode_time_seconds", last - first)
        self._observe("request_inference_time_seconds", last - scheduled)
        if sequence.tokens > 1:
            mean = (last - first) / (sequence.tokens - 1)
            self._observe("request_time_per_output_token_seconds", mean)

    def _simulated(self, times: SimulatedTimes, tokens: int) -> None:
        first = times.first_token.seconds
        self._histograms["ridgeline_simulated_time_to_first_token_seconds"].observe(first)
        if tokens > 1:
            mean = (times.total.seconds - first) / (tokens - 1)
            self._histograms["ridgeline_simulated_time_per_output_token_seconds"].observe(mean)

    def embedded(self, tokens: int, seconds: float) -> None:
        """A request of an embedding model was answered."""
        self._ended[Ended.STOP].inc()
        self._observe("e2e_request_latency_seconds", seconds)
        self._observe("request_prompt_tokens", tokens)
        self._counters["vllm:prompt_tokens"].inc(tokens)

    def rejected(self, code: str) -> None:
        """A request was answered with the error ``code``, one of those that we define."""
        self._rejected.labels(*self._labels, code).inc()

    def step(self, seconds: float, tokens: int) -> None:
        """An engine step is over. Called on the engine's thread."""
        self._histograms["ridgeline_step_seconds"].observe(seconds)
        self._observe("iteration_tokens_total", tokens)

    def _observe(self, name: str, value: float) -> None:
        self._histograms["vllm:" + name].observe(value)


class EngineCollector(Collector):
    """The engine's own statistics, read when they are asked for."""

    def __init__(self, labels: tuple[str, str], stats: Callable[[], EngineStats]) -> None:
        self._labels = labels
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        used = 1 - stats.free_blocks / stats.total_blocks if stats.total_blocks else 0.0
        idle = max(0.0, stats.busy_seconds - stats.device_seconds)
        gauges = {
            "vllm:num_requests_running": ("Sequences in the running batch.", stats.running),
            "vllm:num_requests_waiting": ("Sequences that wait for it.", stats.waiting),
            "vllm:kv_cache_usage_perc": ("Share of the KV blocks in use, 0 to 1.", used),
            "ridgeline_max_waiting": ("Sequences that may wait before 429.", stats.max_waiting),
            "ridgeline_compute_idle_ratio": (
                "Share of the time with work in hand in which no step computed, since the start.",
                idle / stats.busy_seconds if stats.busy_seconds else 0.0,
            ),
        }
        if stats.simulates is not None and stats.simulated is not None:
            gauges |= _simulated_gauges(stats.simulates, stats.simulated, stats.generated_tokens)
        for name, (words, value) in gauges.items():
            gauge = GaugeMetricFamily(name, words, labels=_LABELS)
            gauge.add_metric(self._labels, value)
            yield gauge
        if stats.simulates is not None:
            yield from _simulated_device(stats.simulates)
        counters = {
            "vllm:num_preemptions": ("Sequences that gave their blocks back.", stats.preemptions),
            "vllm:spec_decode_num_drafts": ("Drafts that were verified.", stats.drafts),
            "vllm:prefix_cache_queries": ("Prompt tokens looked for.", stats.prefix_queries),
            "vllm:prefix_cache_hits": ("Prompt tokens found in memory.", stats.prefix_hits),
            "vllm:spec_decode_num_draft_tokens": ("Tokens drafted.", stats.draft_tokens),
            "vllm:spec_decode_num_accepted_tokens": ("Of these, kept.", stats.accepted_tokens),
            "ridgeline_steps": ("Steps of the engine.", stats.steps),
            "ridgeline_compute_seconds": ("Time in steps.", stats.device_seconds),
            "ridgeline_compute_idle_seconds": ("Time with work and outside of steps.", idle),
        }
        for name, (words, value) in counters.items():
            counter = CounterMetricFamily(name, words, labels=_LABELS)
            counter.add_metric(self._labels, value)
            yield counter


class HardwareCollector(Collector):
    """A simulated device whose calls no engine counts, read when it is asked for."""

    def __init__(self, labels: tuple[str, str], hardware: MeteredHardware) -> None:
        self._labels = labels
        self._hardware = hardware

    def collect(self) -> Iterator[Metric]:
        device, spent = self._hardware.simulates, self._hardware.spent_by_all
        for name, (words, value) in _simulated_gauges(device, spent, 0).items():
            gauge = GaugeMetricFamily(name, words, labels=_LABELS)
            gauge.add_metric(self._labels, value)
            yield gauge
        calls = CounterMetricFamily("ridgeline_steps", "Calls of the device.", labels=_LABELS)
        calls.add_metric(self._labels, self._hardware.executions.total)
        yield calls
        yield from _simulated_device(device)


class ExecutionsCollector(Collector):
    """How often each compiled program ran on a simulated device, and with what errors runs ended;
    and the time that this process took of the machine's processor."""

    def __init__(self, hardware: SimulatedHardware) -> None:
        self._hardware = hardware

    def collect(self) -> Iterator[Metric]:
        found = self._hardware.executions
        program = ("phase", "bucket", "batch")
        calls = CounterMetricFamily(
            "ridgeline_simulated_executions", "Of a compiled program.", labels=program
        )
        times = GaugeMetricFamily(
            "ridgeline_simulated_execution_seconds", "Predicted, of one.", labels=program
        )
        for call, count in found.completed.items():
            labels = (call.phase, str(call.bucket), str(call.batch))
            calls.add_metric(labels, count)
            times.add_metric(labels, call.time.seconds)
        yield calls
        yield times
        failed = CounterMetricFamily(
            "ridgeline_simulated_execution_errors",
            "Executions that ended with an error of the runtime.",
            labels=("code",),
        )
        for code, count in found.failed.items():
            failed.add_metric((code,), count)
        yield failed
        used = resource.getrusage(resource.RUSAGE_SELF)
        processor = CounterMetricFamily(
            "ridgeline_process_cpu_seconds", "Of this process, by mode.", labels=("mode",)
        )
        processor.add_metric(("user",), used.ru_utime)
        processor.add_metric(("system",), used.ru_stime)
        yield processor


def _simulated_device(device: SimulatedDevice) -> Iterator[Metric]:
    """What the replica stands for, and what fills the memory of each of its cores."""
    info = GaugeMetricFamily(
        "ridgeline_simulated_device_info",
        "The device that the replica stands for.",
        labels=("instance_type", "neuron_cores", "logical_neuroncore_config", "copies"),
    )
    lnc, copies = device.logical_neuroncore_config, device.copies
    info.add_metric((device.instance_type, str(device.cores), str(lnc), str(copies)), 1.0)
    yield info
    memory = GaugeMetricFamily(
        "ridgeline_simulated_core_memory_bytes", "Of one core, by kind.", labels=("kind",)
    )
    for kind, size in device.core_bytes.items():
        memory.add_metric((kind,), size)
    yield memory


def _simulated_gauges(
    device: SimulatedDevice, total: DeviceTime, tokens: int
) -> dict[str, tuple[str, float]]:
    """Of the device that the replica stands for, over all its steps."""
    seconds = total.seconds or float("inf")
    found = {
        "ridgeline_simulated_device_seconds": (
            "Predicted time of all steps of all copies.",
            total.seconds,
        ),
        "ridgeline_simulated_core_utilization": (
            "Share of that which the FLOPs would take at the peak of the cores.",
            total.peak_seconds / seconds,
        ),
        "ridgeline_simulated_collective_share": (
            "Share of that in which cores exchange.",
            total.collective_seconds / seconds,
        ),
    }
    cost = device.usd(total.seconds)
    if cost is not None and tokens:
        found["ridgeline_simulated_usd_per_million_tokens"] = (
            "Price of that time, for a million generated tokens.",
            cost / tokens * 1e6,
        )
    return found
