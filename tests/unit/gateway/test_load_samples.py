"""What CloudWatch is told of how much each variant has to do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ridgeline_service.gateway.load_samples import LoadSamples
from ridgeline_service.gateway.metrics import Metrics
from ridgeline_service.gateway.routing import Limits, Router
from ridgeline_service.snapshot import (
    AsyncRoute,
    EndpointRoute,
    ReplicaRoute,
    Snapshot,
    VariantRoute,
)
from ridgeline_service.telemetry.samples import SampleStore, metric_of


@dataclass
class Backlog:
    """The spool, as far as it is asked here."""

    size: int = 0

    def backlog(self, endpoint: str) -> int:
        return self.size


@dataclass
class Watched:
    """A router, its samples and a clock that moves when told."""

    root: Path
    replicas: dict[str, int]
    asynchronous: bool = False
    now: float = 1000.0
    spool: Backlog = field(default_factory=Backlog)

    def __post_init__(self) -> None:
        variants = tuple(
            VariantRoute(
                name,
                1.0,
                tuple(ReplicaRoute(f"{name}{n}", "http://x", "t") for n in range(count)),
            )
            for name, count in self.replicas.items()
        )
        route = EndpointRoute("e", "arn", "InService", "", 0.0, variants)
        if self.asynchronous:
            route = EndpointRoute(**{**route.__dict__, "asynchronous": AsyncRoute("s3://b/out")})
        snapshot = Snapshot(version=1, endpoints={"e": route})
        limits = Limits(per_replica=2, queue=10, busy_wait_s=30, absent_wait_s=30)
        self.router = Router(lambda: snapshot, Metrics(), limits)
        self.store = SampleStore(self.root / "samples.db")
        self.loads = LoadSamples(
            self.store,
            self.router,
            self.spool,  # type: ignore[arg-type]
            lambda: snapshot,
            clock=lambda: self.now,
        )

    async def pass_seconds(self, count: int) -> None:
        for _ in range(count):
            await self.loads.look()
            self.now += 1

    def averages(self, name: str, variant: str = "A") -> list[float | None]:
        dimensions = [{"Name": "EndpointName", "Value": "e"}]
        if variant:
            dimensions.append({"Name": "VariantName", "Value": variant})
        metric = metric_of("AWS/SageMaker", name, dimensions)
        found = self.store.read(metric, start=0, end=1e10, period=10)
        return [bucket.statistic("Average") for bucket in found]


def test_concurrency_is_an_instances_and_counts_who_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        watched = Watched(tmp_path, {"A": 2})
        leases = [await watched.router.acquire("e") for _ in range(4)]
        waiting = [asyncio.create_task(watched.router.acquire("e")) for _ in range(2)]
        await asyncio.sleep(0)
        await watched.pass_seconds(5)
        for lease in leases:
            lease.release()
        later = await asyncio.gather(*waiting)
        await watched.pass_seconds(5)
        for lease in later:
            lease.release()
        await watched.pass_seconds(21)
        # (4 + 2) / 2 for half of the time, then 2 / 2; then nothing, which is said once.
        assert watched.averages("ConcurrentRequestsPerModel") == pytest.approx([2.0, 0.0])
        watched.store.close()

    asyncio.run(scenario())


def test_each_variant_has_its_own_and_who_waits_for_any_is_shared_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        watched = Watched(tmp_path, {"A": 1, "B": 1})
        leases = [await watched.router.acquire("e") for _ in range(4)]
        waiting = [asyncio.create_task(watched.router.acquire("e")) for _ in range(2)]
        only = asyncio.create_task(watched.router.acquire("e", target="B"))
        await asyncio.sleep(0)
        await watched.pass_seconds(11)
        assert watched.averages("ConcurrentRequestsPerModel", "A") == [3.0]
        assert watched.averages("ConcurrentRequestsPerModel", "B") == [4.0]
        for lease in leases:
            lease.release()
        for task in (*waiting, only):
            (await task).release()
        watched.store.close()

    asyncio.run(scenario())


def test_an_endpoint_that_nobody_asked_writes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        watched = Watched(tmp_path, {"A": 1}, asynchronous=True)
        await watched.pass_seconds(40)
        assert watched.store.metrics() == []
        watched.store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("instances", "per_instance", "without"), [(2, 3.0, 0.0), (0, 6.0, 1.0)])
def test_the_backlog_of_an_asynchronous_endpoint(
    tmp_path: Path, instances: int, per_instance: float, without: float
) -> None:
    async def scenario() -> None:
        watched = Watched(tmp_path, {"A": instances}, asynchronous=True)
        watched.spool.size = 6
        await watched.pass_seconds(11)
        assert watched.averages("ApproximateBacklogSize", "") == [6.0]
        assert watched.averages("ApproximateBacklogSizePerInstance", "") == [per_instance]
        assert watched.averages("HasBacklogWithoutCapacity", "") == ([without] if without else [])
        watched.store.close()

    asyncio.run(scenario())
