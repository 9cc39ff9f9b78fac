"""Whose turn it is among the jobs that wait, and what they say meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from control_jobs import create, describe, message, status, ticks
from fake_runners import FakeRunners

from ridgeline_service.control.jobs.queue import PASSED_FOR_S
from ridgeline_service.placement.machine import GIB
from ridgeline_service.settings import Settings


@pytest.fixture
def two(make_world: Any, runners: FakeRunners) -> Any:
    """A service that runs two instances at once, one of them taken by ``long``."""
    world = make_world(runners=runners, settings=Settings(max_instances=2))
    create(world, "long")
    ticks(world)
    return world


def running(runners: FakeRunners) -> set[str]:
    return {runner.spec.order.job for runner in runners.running.values()}


def test_a_job_that_fits_passes_one_that_does_not(two: Any, runners: FakeRunners) -> None:
    create(two, "wide", count=2)
    two.now += 1
    create(two, "small")
    ticks(two)
    assert running(runners) == {"long", "small"}
    assert status(two, "wide") == ("InProgress", "Pending")
    runners.end("small")
    runners.end("long")
    ticks(two)
    assert running(runners) == {"wide"}


def test_a_job_that_waits_for_long_is_passed_no_more(two: Any, runners: FakeRunners) -> None:
    create(two, "wide", count=2)
    two.now += PASSED_FOR_S
    create(two, "small")
    ticks(two)
    assert running(runners) == {"long"}
    assert "behind training job 'wide'" in message(two, "small")
    assert "room is kept for it" in message(two, "wide")
    runners.end("long")
    ticks(two)
    assert running(runners) == {"wide"}


def test_no_room_is_kept_for_a_job_that_does_not_fit_beside_the_endpoints(
    make_world: Any, runners: FakeRunners
) -> None:
    world = make_world(runners=runners, settings=Settings(max_instances=2))
    world.deploy("e")
    create(world, "wide", count=2)
    world.now += PASSED_FOR_S
    create(world, "small")
    ticks(world)
    assert running(runners) == {"small"}
    assert "does not fit beside the endpoints that run" in message(world, "wide")
    world.plane.endpoints.delete({"EndpointName": "e"})
    create(world, "next")
    world.settle()
    assert running(runners) == {"small"}
    assert "room is kept for it" in message(world, "wide")
    runners.end("small")
    ticks(world)
    assert running(runners) == {"wide"}


def test_nobody_passes_a_job_that_fits_as_well(two: Any, runners: FakeRunners) -> None:
    names = [f"j{number}" for number in range(4)]
    for name in names:
        create(two, name)
        two.now += 1
    begun = []
    while len(begun) < len(names):
        ticks(two)
        (now,) = running(runners) - {"long"}
        begun.append(now)
        runners.end(now)
    assert begun == names


def test_every_job_that_waits_says_what_for(two: Any, runners: FakeRunners) -> None:
    for name in ("next", "second", "third"):
        create(two, name)
        two.now += 1
    ticks(two)
    assert running(runners) == {"long", "next"}
    for name in ("second", "third"):
        assert status(two, name) == ("InProgress", "Pending")
        assert "2 of at most 2 run" in message(two, name)
    runners.end("next")
    ticks(two)
    statuses = [each["Status"] for each in describe(two, "second")["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Pending", "Starting"]
    waits = [event for event in two.plane.events.list() if event["change"] == "Waiting"]
    assert len(waits) == 2


def test_the_reason_of_a_wait_follows_what_it_is(make_world: Any, runners: FakeRunners) -> None:
    settings = Settings(max_instances=2)
    world = make_world(runners=runners, settings=settings, memory_bytes=4 * GIB)
    create(world, "long")
    create(world, "other")
    world.now += 1
    create(world, "big", Environment={"RIDGELINE_MEMORY_MB": "3500"})
    ticks(world)
    assert "2 of at most 2 run" in message(world, "big")
    runners.end("other")
    ticks(world)
    assert "Waiting for memory" in message(world, "big")
    moments = describe(world, "big")["SecondaryStatusTransitions"]
    assert [moment["Status"] for moment in moments] == ["Starting", "Pending"]


def test_waiting_too_long_stops_a_job_wherever_it_stands(two: Any) -> None:
    create(two, "wide", count=2)
    times = {"MaxRuntimeInSeconds": 5, "MaxWaitTimeInSeconds": 10}
    late = {"EnableManagedSpotTraining": True, "StoppingCondition": times}
    create(two, "late", count=2, **late)
    ticks(two)
    two.tick(11)
    ticks(two)
    assert status(two, "late") == ("Stopped", "MaxWaitTimeExceeded")
    assert status(two, "wide") == ("InProgress", "Pending")
