"""Fairness and bounds of the router, without a network."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_service.errors import ServiceUnavailable, ThrottlingException, ValidationException
from ridgeline_service.gateway.metrics import Metrics
from ridgeline_service.gateway.routing import Lease, Limits, Router
from ridgeline_service.snapshot import EndpointRoute, ReplicaRoute, Snapshot, VariantRoute


class Routes:
    """A snapshot that the test changes."""

    def __init__(self, *variants: VariantRoute, status: str = "InService") -> None:
        endpoint = EndpointRoute("e", "arn", status, "", 0.0, variants)
        self.snapshot = Snapshot(version=1, endpoints={"e": endpoint})

    def __call__(self) -> Snapshot:
        return self.snapshot

    def publish(self, *variants: VariantRoute) -> None:
        endpoint = replace(self.snapshot.endpoints["e"], variants=variants)
        self.snapshot = replace(self.snapshot, endpoints={"e": endpoint})


def variant(name: str, weight: float, replicas: int) -> VariantRoute:
    routes = tuple(ReplicaRoute(f"{name}-{i}", "http://x", "t") for i in range(replicas))
    return VariantRoute(name, weight, routes)


def router(routes: Routes, **limits: float) -> Router:
    return Router(routes, Metrics(), Limits(**limits))  # type: ignore[arg-type]


@settings(deadline=None)
@given(
    weights=st.lists(st.floats(0.05, 10), min_size=1, max_size=4),
    requests=st.integers(1, 60),
)
async def test_each_variant_gets_its_share(weights: list[float], requests: int) -> None:
    routes = Routes(*(variant(f"v{i}", weight, 1) for i, weight in enumerate(weights)))
    subject = router(routes)
    got: Counter[str] = Counter()
    for _ in range(requests):
        lease = await subject.acquire("e")
        got[lease.variant.name] += 1
        lease.release()
    for i, weight in enumerate(weights):
        due = requests * weight / sum(weights)
        assert abs(got[f"v{i}"] - due) <= len(weights)


@settings(deadline=None)
@given(st.integers(1, 5), st.lists(st.booleans(), max_size=80))
async def test_replicas_are_loaded_evenly(replicas: int, steps: list[bool]) -> None:
    subject = router(Routes(variant("v", 1, replicas)))
    held: list[Lease] = []
    for take in steps:
        if take:
            before = [subject.outstanding(f"v-{i}") for i in range(replicas)]
            lease = await subject.acquire("e")
            assert subject.outstanding(lease.replica.replica_id) == min(before) + 1
            held.append(lease)
        elif held:
            held.pop(len(held) // 2).release()
    for lease in held:
        lease.release()
        lease.release()
    assert all(subject.outstanding(f"v-{i}") == 0 for i in range(replicas))


async def test_idle_replicas_take_turns() -> None:
    subject = router(Routes(variant("v", 1, 3)))
    seen = []
    for _ in range(6):
        lease = await subject.acquire("e")
        seen.append(lease.replica.replica_id)
        lease.release()
    assert Counter(seen) == {"v-0": 2, "v-1": 2, "v-2": 2}


async def test_those_who_wait_are_served_in_order() -> None:
    subject = router(Routes(variant("v", 1, 1)), per_replica=1)
    first = await subject.acquire("e")
    served: list[int] = []

    async def wait(number: int) -> None:
        lease = await subject.acquire("e")
        served.append(number)
        lease.release()

    tasks = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    subject.refresh()
    await asyncio.sleep(0)
    first.release()
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3, 4]


async def test_the_queue_is_bounded() -> None:
    subject = router(Routes(variant("v", 1, 1)), per_replica=1, queue=2)
    held = await subject.acquire("e")
    waiting = [asyncio.create_task(subject.acquire("e")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ThrottlingException):
        await subject.acquire("e")
    held.release()
    (await waiting[0]).release()
    (await waiting[1]).release()


async def test_one_who_leaves_the_queue_takes_nobodys_place() -> None:
    subject = router(Routes(variant("v", 1, 1)), per_replica=1)
    held = await subject.acquire("e")
    leaver, stayer = (asyncio.create_task(subject.acquire("e")) for _ in range(2))
    await asyncio.sleep(0)
    held.release()
    leaver.cancel()
    lease = await asyncio.wait_for(stayer, 5)
    assert lease.replica.replica_id == "v-0"
    lease.release()
    assert subject.outstanding("v-0") == 0


async def test_waits_for_a_replica_to_come() -> None:
    routes = Routes(variant("v", 1, 0))
    subject = router(routes)
    waiting = asyncio.create_task(subject.acquire("e"))
    await asyncio.sleep(0)
    routes.publish(variant("v", 1, 1))
    subject.refresh()
    (await asyncio.wait_for(waiting, 5)).release()


async def test_nobody_comes() -> None:
    subject = router(Routes(variant("v", 1, 0)), absent_wait_s=0)
    with pytest.raises(ServiceUnavailable):
        await subject.acquire("e")
    busy = router(Routes(variant("v", 1, 1)), per_replica=1, busy_wait_s=0)
    held = await busy.acquire("e")
    with pytest.raises(ThrottlingException):
        await busy.acquire("e")
    held.release()


async def test_another_variant_stands_in_for_one_without_replicas() -> None:
    subject = router(Routes(variant("gone", 1, 0), variant("spare", 0, 1)))
    lease = await subject.acquire("e")
    assert lease.variant.name == "spare"
    lease.release()


async def test_refusals_name_the_fault() -> None:
    with pytest.raises(ValidationException, match="Endpoint other "):
        await router(Routes()).acquire("other")
    with pytest.raises(ValidationException, match="status is Creating"):
        await router(Routes(status="Creating")).acquire("e")
    with pytest.raises(ValidationException, match="Variant x not found"):
        await router(Routes(variant("v", 1, 1))).acquire("e", target="x")


def fleets(*shares: tuple[float, int], name: str = "v", weight: float = 1.0) -> list[VariantRoute]:
    """A variant's fleets by (share, replicas), the old one first, as an update has them."""
    return [
        replace(variant(f"{name}{i}", weight, replicas), name=name, deployment=f"d{i}", share=share)
        for i, (share, replicas) in enumerate(shares)
    ]


async def spread(subject: Router, requests: int, target: str = "") -> Counter[str]:
    got: Counter[str] = Counter()
    for _ in range(requests):
        lease = await subject.acquire("e", target=target)
        got[lease.variant.deployment] += 1
        lease.release()
    return got


@settings(deadline=None)
@given(
    canary=st.integers(0, 100),
    replicas=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    targeted=st.booleans(),
)
async def test_two_fleets_share_a_variants_requests(
    canary: int, replicas: tuple[int, int], targeted: bool
) -> None:
    share = canary / 100
    subject = router(Routes(*fleets((1 - share, replicas[0]), (share, replicas[1]))))
    got = await spread(subject, 200, "v" if targeted else "")
    assert abs(got["d1"] - 200 * share) <= 1


async def test_weights_and_shares_multiply() -> None:
    routes = [
        *fleets((0.75, 1), (0.25, 2), name="a", weight=0.8),
        *fleets((0.75, 1), (0.25, 1), name="b", weight=0.2),
    ]
    subject = router(Routes(*routes))
    got: Counter[tuple[str, str]] = Counter()
    for _ in range(100):
        lease = await subject.acquire("e")
        got[lease.variant.name, lease.variant.deployment] += 1
        lease.release()
    assert got == {("a", "d0"): 60, ("a", "d1"): 20, ("b", "d0"): 15, ("b", "d1"): 5}


async def test_what_an_update_changes_counts_from_the_next_request() -> None:
    routes = Routes(*fleets((1.0, 1), weight=50.0), variant("w", 1.0, 1))
    subject = router(routes)
    await spread(subject, 25)
    routes.publish(*fleets((0.5, 1), (0.5, 1)))
    subject.refresh()
    got = await spread(subject, 20)
    assert abs(got["d1"] - 10) <= 1, "what was owed under other weights is no debt now"


async def test_the_old_fleet_stands_in_for_a_new_one_that_died() -> None:
    """Before the routes say so, too: its replica was tried and refused the connection."""
    subject = router(Routes(*fleets((0.0, 1), (1.0, 1))))
    assert await spread(subject, 5) == {"d1": 5}
    lease = await subject.acquire("e", excluded={"v1-0"})
    assert lease.variant.deployment == "d0"
    lease.release()
    subject = router(Routes(*fleets((0.0, 1), (1.0, 0))))
    assert await spread(subject, 5, "v") == {"d0": 5}


async def test_the_old_fleet_does_not_stand_in_for_one_that_is_busy() -> None:
    subject = router(Routes(*fleets((0.0, 1), (1.0, 1))), per_replica=1, busy_wait_s=0)
    held = await subject.acquire("e")
    with pytest.raises(ThrottlingException):
        await subject.acquire("e")
    held.release()


def serverless(limit: int, replicas: int = 1, name: str = "v") -> VariantRoute:
    return replace(variant(name, 1, replicas), max_concurrency=limit)


async def test_a_serverless_variant_refuses_what_is_beyond_its_concurrency() -> None:
    subject = router(Routes(serverless(2)))
    held = [await subject.acquire("e") for _ in range(2)]
    for target in ("", "v"):
        with pytest.raises(ThrottlingException, match=r"takes 2 requests at once.*MaxCon"):
            await subject.acquire("e", target=target)
    held[0].release()
    (await subject.acquire("e")).release()
    held[1].release()


async def test_who_waits_for_a_serverless_variants_replica_counts() -> None:
    routes = Routes(serverless(1, replicas=0))
    subject = router(routes)
    waiting = asyncio.create_task(subject.acquire("e"))
    await asyncio.sleep(0)
    with pytest.raises(ThrottlingException, match="MaxConcurrency"):
        await subject.acquire("e")
    routes.publish(serverless(1))
    subject.refresh()
    (await asyncio.wait_for(waiting, 5)).release()


async def test_both_fleets_of_a_serverless_variant_count_together() -> None:
    subject = router(Routes(*(replace(f, max_concurrency=2) for f in fleets((0.5, 1), (0.5, 1)))))
    held = [await subject.acquire("e") for _ in range(2)]
    with pytest.raises(ThrottlingException):
        await subject.acquire("e")
    for lease in held:
        lease.release()


@pytest.mark.parametrize(("old", "new"), [(2, 6), (6, 2)])
async def test_two_fleets_of_unlike_concurrency_keep_their_shares(old: int, new: int) -> None:
    """The larger one is for both: what the smaller would refuse does not all go to the other."""
    first, second = fleets((0.5, 1), (0.5, 1))
    subject = router(
        Routes(replace(first, max_concurrency=old), replace(second, max_concurrency=new))
    )
    held = [await subject.acquire("e") for _ in range(6)]
    assert Counter(lease.variant.deployment for lease in held) == {"d0": 3, "d1": 3}
    with pytest.raises(ThrottlingException, match="takes 6 requests"):
        await subject.acquire("e")
    for lease in held:
        lease.release()


async def test_a_fleet_that_only_stands_by_limits_nothing() -> None:
    first, second = fleets((0.0, 1), (1.0, 1))
    subject = router(Routes(replace(first, max_concurrency=9), replace(second, max_concurrency=1)))
    held = await subject.acquire("e")
    with pytest.raises(ThrottlingException, match="takes 1 requests"):
        await subject.acquire("e")
    held.release()
