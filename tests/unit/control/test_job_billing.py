"""What a job is billed for: the time between its start and its end."""

from __future__ import annotations

from typing import Any

import pytest
from control_jobs import SPOT, create, describe, ticks
from fake_runners import FakeRunners

from ridgeline_service.runtime.keeper import ExitStatus
from ridgeline_service.training.causes import Cause
from ridgeline_service.training.report import Report, Transition


def begin(world: Any, runners: FakeRunners, name: str, hosts: int = 1) -> int:
    """Up to where its data comes, after a while; microseconds of that moment."""
    ticks(world)
    world.tick(20)  # the instances are made ready, which nobody pays for
    now = int(world.now * 1e6)
    for host in range(1, hosts + 1):
        runners.one(name, f"algo-{host}").report = Report(
            transitions=(Transition("Downloading", now, "d"),), training_started_at=now
        )
    ticks(world)
    return now


def test_the_time_that_is_billed_is_that_between_start_and_end(
    jobs: Any, runners: FakeRunners
) -> None:
    world = jobs()
    create(world, "j", count=2)
    began = begin(world, runners, "j", hosts=2)
    world.tick(30)
    for host in ("algo-1", "algo-2"):
        runners.end("j", host, at=int(world.now * 1e6))
    ticks(world)
    found = describe(world, "j")
    lasted = (found["TrainingEndTime"] - found["TrainingStartTime"]).total_seconds()
    assert found["TrainingStartTime"].timestamp() == pytest.approx(began / 1e6)
    assert found["BillableTimeInSeconds"] == found["TrainingTimeInSeconds"] == round(lasted)


def test_spot_training_is_not_billed_between_its_attempts(jobs: Any, runners: FakeRunners) -> None:
    world = jobs()
    create(world, "j", **SPOT)
    begin(world, runners, "j")
    world.tick(10)
    killed = world.now
    runners.one("j").alive = False
    runners.one("j").exit = ExitStatus(None, 9, killed)
    world.tick(100)
    begin(world, runners, "j")
    world.tick(5)
    runners.end("j", at=int(world.now * 1e6))
    ticks(world)
    found = describe(world, "j")
    assert found["TrainingJobStatus"] == "Completed"
    assert found["TrainingTimeInSeconds"] >= 135
    assert 15 <= found["BillableTimeInSeconds"] <= 25


def test_a_job_that_never_began_is_not_billed(jobs: Any, runners: FakeRunners) -> None:
    world = jobs()
    create(world, "j", **SPOT)
    ticks(world)
    runners.end("j", outcome="failed", cause=Cause.ENVIRONMENT_FAILED, message="ClientError: pip")
    ticks(world)
    found = describe(world, "j")
    assert found["TrainingJobStatus"] == "Failed"
    times = {"TrainingStartTime", "TrainingTimeInSeconds", "BillableTimeInSeconds"}
    assert not times & found.keys()
