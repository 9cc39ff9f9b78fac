"""Prometheus metrics of the control plane's process, in a registry of its own."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


@dataclass(frozen=True)
class ApiMetrics:
    """Counts and times of API calls. Labels are bounded: names we know, and error codes."""

    registry: CollectorRegistry
    calls: Counter
    seconds: Histogram

    @classmethod
    def create(cls) -> ApiMetrics:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        return cls(
            registry=registry,
            calls=Counter(
                "ridgeline_api_calls",
                "API calls answered, by service, operation and error code (empty: none).",
                ("service", "operation", "code"),
                registry=registry,
            ),
            seconds=Histogram(
                "ridgeline_api_call_seconds",
                "Time to answer an API call.",
                ("service", "operation"),
                buckets=_BUCKETS,
                registry=registry,
            ),
        )

    def observe(self, service: str, operation: str, code: str, seconds: float) -> None:
        self.calls.labels(service, operation, code).inc()
        self.seconds.labels(service, operation).observe(seconds)

    def exposition(self) -> bytes:
        """The text that a Prometheus server scrapes."""
        return generate_latest(self.registry)
