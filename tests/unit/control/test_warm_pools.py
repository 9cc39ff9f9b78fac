"""The life of warm pools over real rows, with runners that are values."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from fake_runners import FakeRunners

from ridgeline_service.errors import ResourceInUse, ValidationException
from ridgeline_service.settings import Settings
from ridgeline_service.training.causes import Cause
from ridgeline_service.training.report import Report, Transition

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-cpu-py312"


@pytest.fixture
def world(make_world: Callable[..., Any], runners: FakeRunners) -> Any:
    return make_world(runners=runners, settings=Settings(max_instances=2))


def create(world: Any, name: str, *, keep: int | None = 100, **resources: Any) -> None:
    config = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1, **resources}
    if keep is not None:
        config["KeepAlivePeriodInSeconds"] = keep
    world.plane.training_jobs.create(
        {
            "TrainingJobName": name,
            "RoleArn": world.settings.role_arn,
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "OutputDataConfig": {"S3OutputPath": "s3://b/out"},
            "ResourceConfig": config,
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        }
    )


def pool(world: Any, name: str) -> dict[str, Any]:
    found = world.plane.training_jobs.describe({"TrainingJobName": name})
    return dict(found.get("WarmPoolStatus", {}))


def ticks(world: Any, count: int = 5, seconds: float = 0.6) -> None:
    for _ in range(count):
        world.tick(seconds)


def run(world: Any, runners: FakeRunners, name: str, **options: Any) -> None:
    create(world, name, **options)
    ticks(world)
    runners.end(name)
    ticks(world)


def test_the_next_job_of_the_kind_takes_the_runner(world: Any, runners: FakeRunners) -> None:
    create(world, "first")
    ticks(world)
    assert pool(world, "first") == {"Status": "InUse"}
    runners.end("first")
    ticks(world)
    assert pool(world, "first")["Status"] == "Available"
    [waiting] = runners.waiting
    create(world, "second", keep=None)
    ticks(world)
    assert runners.employed == [waiting]
    assert runners.one("second").spec.order.job == "second"
    assert runners.one("second").spec.log_stream.startswith("second/algo-1-")
    assert len(runners.started) == 1
    found = pool(world, "first")
    assert (found["Status"], found["ReusedByJob"]) == ("Reused", "second")
    assert found["ResourceRetainedBillableTimeInSeconds"] >= 1
    runners.end("second")
    ticks(world)
    assert runners.ids() == []


def begin(world: Any, runners: FakeRunners, name: str, **options: Any) -> None:
    """Up to where its script runs."""
    create(world, name, **options)
    ticks(world)
    now = int(world.now * 1e6)
    runs = (Transition("Training", now, "t"),)
    runners.one(name).report = Report(transitions=runs, training_started_at=now)
    ticks(world)


def test_the_next_runner_is_ready_when_the_job_ends(world: Any, runners: FakeRunners) -> None:
    begin(world, runners, "first")
    [waiting] = runners.waiting
    assert pool(world, "first") == {"Status": "InUse"}
    world.kill_plane()
    ticks(world)
    assert list(runners.waiting) == [waiting]
    runners.end("first")
    world.tick(0.6)
    create(world, "second", keep=None)
    for _ in range(3):
        world.tick(0.1)
    assert runners.employed == [waiting]
    assert pool(world, "first")["ReusedByJob"] == "second"


def test_a_runner_that_dies_while_the_job_runs_is_started_anew(
    world: Any, runners: FakeRunners
) -> None:
    begin(world, runners, "first")
    [dead] = runners.waiting
    runners.lose_waiting()
    ticks(world, 8)
    [other] = runners.waiting
    assert other != dead
    assert runners.lost == set()
    runners.end("first")
    ticks(world)
    assert pool(world, "first")["Status"] == "Available"


def test_a_failure_ends_the_runner_that_was_ready(world: Any, runners: FakeRunners) -> None:
    begin(world, runners, "first")
    runners.end("first", outcome="failed", cause=Cause.SCRIPT_FAILED, message="AlgorithmError: x")
    ticks(world)
    assert pool(world, "first")["Status"] == "Terminated"
    assert runners.ids() == []


def test_a_job_that_comes_at_once_waits_for_the_runner_to_be_ready(
    world: Any, runners: FakeRunners
) -> None:
    create(world, "first")
    ticks(world)
    runners.slow = True
    runners.end("first")
    create(world, "second", keep=None)
    ticks(world)
    assert pool(world, "first")["Status"] == "Available"
    assert len(runners.started) == 1, "a runner of its own would be ready no sooner"
    runners.slow = False
    ticks(world)
    assert runners.one("second").spec.id in runners.employed
    assert pool(world, "first")["ReusedByJob"] == "second"


def test_a_job_starts_by_itself_when_the_runner_it_waits_for_dies(
    world: Any, runners: FakeRunners
) -> None:
    create(world, "first")
    ticks(world)
    runners.slow = True
    runners.end("first")
    create(world, "second", keep=None)
    ticks(world, 2)
    runners.lose_waiting()
    ticks(world)
    assert pool(world, "first")["Status"] == "Terminated"
    assert runners.one("second").spec.id in runners.started
    assert runners.employed == []


def test_another_kind_of_job_starts_a_runner_of_its_own(world: Any, runners: FakeRunners) -> None:
    run(world, runners, "first")
    create(world, "second", VolumeSizeInGB=2)
    ticks(world)
    assert runners.employed == []
    assert pool(world, "first")["Status"] == "Available"


def test_a_pool_ends_with_its_time(world: Any, runners: FakeRunners) -> None:
    run(world, runners, "first", keep=30)
    assert pool(world, "first")["Status"] == "Available"
    ticks(world, 3, 15)
    assert pool(world, "first")["Status"] == "Terminated"
    assert runners.ids() == []
    retained = pool(world, "first")["ResourceRetainedBillableTimeInSeconds"]
    ticks(world, 3, 15)
    assert pool(world, "first")["ResourceRetainedBillableTimeInSeconds"] == retained


def test_pools_make_way_when_room_is_needed(world: Any, runners: FakeRunners) -> None:
    run(world, runners, "first")
    create(world, "big", keep=None, InstanceCount=2)
    ticks(world)
    assert {each.spec.order.job for each in runners.running.values()} == {"big"}
    assert pool(world, "first")["Status"] == "Terminated"
    assert list(runners.waiting) == []


def test_a_job_that_failed_or_was_stopped_leaves_no_pool(world: Any, runners: FakeRunners) -> None:
    for name, outcome in (("bad", "failed"), ("told", "stopped")):
        create(world, name)
        ticks(world)
        runners.end(name, outcome=outcome, cause=Cause.SCRIPT_FAILED, message="AlgorithmError: x")
        ticks(world)
        assert pool(world, name) == {"Status": "Terminated"}
    assert runners.ids() == []


def test_an_update_prolongs_or_ends_a_pool(world: Any, runners: FakeRunners) -> None:
    def update(name: str, seconds: int) -> None:
        config = {"KeepAlivePeriodInSeconds": seconds}
        request = {"TrainingJobName": name, "ResourceConfig": config}
        world.plane.training_jobs.update(request)

    run(world, runners, "first", keep=30)
    update("first", 300)
    ticks(world, 3, 15)
    assert pool(world, "first")["Status"] == "Available"
    with pytest.raises(ResourceInUse, match="warm pool"):
        world.plane.training_jobs.delete({"TrainingJobName": "first"})
    update("first", 0)
    ticks(world)
    assert pool(world, "first")["Status"] == "Terminated"
    assert runners.ids() == []
    with pytest.raises(ValidationException, match="cannot be changed"):
        update("first", 60)
    world.plane.training_jobs.delete({"TrainingJobName": "first"})
    create(world, "late", keep=None)
    ticks(world)
    update("late", 60)
    runners.end("late")
    ticks(world)
    assert pool(world, "late")["Status"] == "Available"


def test_jobs_are_listed_by_their_pools(world: Any, runners: FakeRunners) -> None:
    run(world, runners, "first")
    create(world, "second", VolumeSizeInGB=2)
    for status, name in (("Available", "first"), ("InUse", "second")):
        found = world.plane.training_jobs.list({"WarmPoolStatusEquals": status})
        [summary] = found["TrainingJobSummaries"]
        assert summary["TrainingJobName"] == name
        assert summary["WarmPoolStatus"]["Status"] == status


def test_a_runner_that_died_while_it_waited_ends_its_pool(world: Any, runners: FakeRunners) -> None:
    run(world, runners, "first")
    runners.waiting.clear()
    ticks(world)
    assert pool(world, "first")["Status"] == "Terminated"
    create(world, "second")
    ticks(world)
    assert len(runners.started) == 2


@pytest.mark.parametrize("seed", range(4))
def test_a_plane_killed_at_any_moment_neither_loses_nor_doubles(
    world: Any, runners: FakeRunners, seed: int
) -> None:
    chance = random.Random(seed)
    for number in range(6):
        create(world, f"j{number}")
        for _ in range(200):
            if chance.random() < 0.3:
                world.kill_plane()
            world.tick(chance.random())
            for each in list(runners.running.values()):
                if each.alive and chance.random() < 0.3:
                    runners.end(each.spec.order.job)
            name = {"TrainingJobName": f"j{number}"}
            if world.plane.training_jobs.describe(name)["TrainingJobStatus"] == "Completed":
                break
    ticks(world, 6)
    statuses = [pool(world, f"j{number}")["Status"] for number in range(6)]
    assert set(statuses[:-1]) <= {"Reused", "Available", "Terminated"}
    ended = statuses.count("Reused") + len(runners.started)
    assert ended == 6, "every job had one runner"
    assert len(runners.ids()) == statuses.count("Available")
    assert statuses[-1] == "Available"
