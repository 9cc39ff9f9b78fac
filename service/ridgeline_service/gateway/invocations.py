"""What CloudWatch shows of endpoints, under SageMaker's names and in its units.

Invocations are gathered in memory and written now and then by a thread: a request pays for a few
additions. What a killed gateway had not written is lost, which is less than ``FLUSH_S`` of numbers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ridgeline_service.gateway.routing import Lease
from ridgeline_service.telemetry.samples import Metric, Sample, SampleStore

NAMESPACE = "AWS/SageMaker"
FLUSH_S = 30.0
_MINUTE_S = 60
# Latencies are kept as counts of bins this much wider than the one below: a percentile is right
# to half of it, an average exactly.
_BIN_WIDTH = math.log(1.05)

_log = logging.getLogger(__name__)


@dataclass
class _Latency:
    """Microseconds by bin: how many, their sum, the least, the greatest."""

    bins: dict[int, tuple[int, float, float, float]] = field(default_factory=dict)

    def add(self, seconds: float) -> None:
        value = max(1.0, seconds * 1e6)
        bin = int(math.log(value) / _BIN_WIDTH)
        n, total, low, high = self.bins.get(bin, (0, 0.0, value, value))
        self.bins[bin] = n + 1, total + value, min(low, value), max(high, value)


@dataclass
class _Counted:
    """One variant's invocations in one minute."""

    replicas: int
    total: int = 0
    client_errors: int = 0
    server_errors: int = 0
    model: _Latency = field(default_factory=_Latency)
    overhead: _Latency = field(default_factory=_Latency)

    def samples(self, endpoint: str, variant: str, minute: float) -> Iterator[Sample]:
        dimensions = (("EndpointName", endpoint), ("VariantName", variant))

        def counted(name: str, errors: int, each: float = 1.0) -> Sample:
            low, high = each * (errors == self.total), each * (errors > 0)
            metric = Metric(NAMESPACE, name, dimensions)
            return Sample(metric, minute, "None", self.total, errors * each, low, high)

        yield counted("Invocations", self.total)
        yield counted("InvocationsPerInstance", self.total, 1.0 / self.replicas)
        yield counted("Invocation4XXErrors", self.client_errors)
        yield counted("Invocation5XXErrors", self.server_errors)
        yield counted("InvocationModelErrors", self.client_errors + self.server_errors)
        for name, latency in (("ModelLatency", self.model), ("OverheadLatency", self.overhead)):
            metric = Metric(NAMESPACE, name, dimensions)
            for n, total, low, high in latency.bins.values():
                yield Sample(metric, minute, "Microseconds", n, total, low, high)


class Invocations:
    """Of one gateway. ``clock`` gives seconds since the epoch."""

    def __init__(self, store: SampleStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._counted: dict[tuple[str, str, int], _Counted] = {}

    def record(self, lease: Lease, status: int, *, model_s: float, overhead_s: float) -> None:
        """An invocation ended: ``status`` is the container's, 5xx where it broke off.
        ``model_s`` is from sending the request to the last byte of the answer, ``overhead_s`` what
        went before it: waiting for a slot, and replicas that were lost."""
        minute = int(self._clock()) // _MINUTE_S * _MINUTE_S
        key = lease.endpoint.name, lease.variant.name, minute
        counted = self._counted.get(key)
        if counted is None:
            counted = self._counted[key] = _Counted(max(1, len(lease.variant.replicas)))
        counted.total += 1
        counted.client_errors += 400 <= status < 500
        counted.server_errors += status >= 500
        counted.model.add(model_s)
        counted.overhead.add(overhead_s)

    async def run(self) -> None:
        """Write what is gathered, again and again, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        counted, self._counted = self._counted, {}
        if not counted:
            return
        samples = [
            sample
            for (endpoint, variant, minute), each in counted.items()
            for sample in each.samples(endpoint, variant, minute)
        ]
        try:
            await asyncio.to_thread(self._store.put, samples)
        except sqlite3.Error as error:
            # Numbers for charts: no request waits for them, and none fails.
            _log.warning("CloudWatch samples of %d variants are lost: %s", len(counted), error)
