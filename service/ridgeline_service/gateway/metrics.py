"""What the gateway counts, in Prometheus' format, by endpoint, operation and status."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """A registry of its own, so that several gateways may live in one process (in tests)."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "ridgeline_requests",
            "Requests answered, by room (inference, control, s3...), endpoint and status.",
            ("room", "endpoint", "operation", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "ridgeline_request_seconds",
            "Time from the request's head to the last byte of the answer.",
            ("room", "endpoint", "operation"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "ridgeline_in_flight",
            "Requests that a replica is working on.",
            ("endpoint",),
            registry=self._registry,
        )
        self.queued = Gauge(
            "ridgeline_queued",
            "Requests that wait for a replica.",
            ("endpoint",),
            registry=self._registry,
        )
        self.spooled = Gauge(
            "ridgeline_async_backlog",
            "Asynchronous requests accepted and not delivered yet.",
            ("endpoint",),
            registry=self._registry,
        )
        self.retries = Counter(
            "ridgeline_replica_retries",
            "Requests sent to another replica because the first one was lost.",
            ("endpoint",),
            registry=self._registry,
        )

        self.rate_limited = Counter(
            "ridgeline_rate_limited",
            "Requests refused because their key is over its limit of requests or tokens.",
            ("limit",),
            registry=self._registry,
        )

    def render(self) -> bytes:
        return generate_latest(self._registry)
