"""How much each variant has to do, every few seconds, for CloudWatch and for scaling policies.

ConcurrentRequestsPerModel is what an instance works on and what waits for it, looked at every
second; the backlog of an asynchronous endpoint is as SageMaker counts it. An endpoint that has
nothing to do, and had nothing before, writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ridgeline_service.gateway.async_invoke import AsyncInvocations
from ridgeline_service.gateway.invocations import NAMESPACE
from ridgeline_service.gateway.routing import Router
from ridgeline_service.snapshot import EndpointRoute, Snapshot
from ridgeline_service.telemetry.samples import Metric, Sample, SampleStore

LOOKED_EVERY_S = 1.0
PERIOD_S = 10

_log = logging.getLogger(__name__)


@dataclass
class _Looks:
    """What was seen of one metric in one period."""

    count: int = 0
    total: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def add(self, value: float) -> None:
        self.low = min(self.low, value) if self.count else value
        self.high = max(self.high, value)
        self.count += 1
        self.total += value


class LoadSamples:
    """Of one gateway. ``clock`` gives seconds since the epoch."""

    def __init__(
        self,
        store: SampleStore,
        router: Router,
        asynchronous: AsyncInvocations,
        snapshot: Callable[[], Snapshot],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._router = router
        self._asynchronous = asynchronous
        self._snapshot = snapshot
        self._clock = clock
        self._period = 0.0
        self._seen: dict[Metric, _Looks] = {}
        self._busy: set[Metric] = set()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOKED_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """One look; writes what a period has seen when the next one begins."""
        period = self._clock() // PERIOD_S * PERIOD_S
        if period != self._period:
            await self._write()
            self._period = period
        for endpoint in self._snapshot().endpoints.values():
            for metric, value in self._values(endpoint):
                self._seen.setdefault(metric, _Looks()).add(value)

    def _values(self, endpoint: EndpointRoute) -> Iterator[tuple[Metric, float]]:
        counts: dict[str, int] = {}
        for variant in endpoint.variants:
            counts[variant.name] = counts.get(variant.name, 0) + len(variant.replicas)
        for name, work in self._router.working(endpoint.name).items():
            dimensions = (("EndpointName", endpoint.name), ("VariantName", name))
            metric = Metric(NAMESPACE, "ConcurrentRequestsPerModel", dimensions)
            yield metric, work / max(1, counts[name])
        if endpoint.asynchronous is None:
            return
        size, instances = self._asynchronous.backlog(endpoint.name), sum(counts.values())
        of = (("EndpointName", endpoint.name),)
        yield Metric(NAMESPACE, "ApproximateBacklogSize", of), size
        per_instance = size / max(1, instances)
        yield Metric(NAMESPACE, "ApproximateBacklogSizePerInstance", of), per_instance
        without = float(size > 0 and instances == 0)
        yield Metric(NAMESPACE, "HasBacklogWithoutCapacity", of), without

    async def _write(self) -> None:
        seen, self._seen = self._seen, {}
        busy = {metric for metric, looks in seen.items() if looks.high > 0}
        samples = [
            Sample(metric, self._period, "None", looks.count, looks.total, looks.low, looks.high)
            for metric, looks in seen.items()
            if metric in busy or metric in self._busy
        ]
        self._busy = busy
        if not samples:
            return
        try:
            await asyncio.to_thread(self._store.put, samples)
        except sqlite3.Error as error:
            # Numbers for charts: no request waits for them, and none fails.
            _log.warning("The load of %d periods is lost: %s", len(samples), error)
