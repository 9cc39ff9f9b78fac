"""What becomes of training jobs under which everything went down."""

from __future__ import annotations

from typing import Any

import pytest
from control_jobs import create, describe, status, ticks
from fake_runners import FakeRunners

from ridgeline_service.runtime.keeper import ExitStatus, ProcessRecord
from ridgeline_service.training.report import Report, Transition
from ridgeline_service.training.runners import RunnerSpec

BEGUN = Report(transitions=(Transition("Downloading", 5, "d"), Transition("Training", 9, "t")))
LOADING = Report(transitions=(Transition("Downloading", 5, "d"),))


class Killed(BaseException):
    """The control plane ends here."""


def killed(spec: RunnerSpec) -> ProcessRecord:
    raise Killed(spec.id)


@pytest.fixture
def world(make_world: Any, runners: FakeRunners) -> Any:
    return make_world(runners=runners)


def run(world: Any, runners: FakeRunners, name: str, report: Report = BEGUN) -> None:
    create(world, name)
    ticks(world)
    runners.one(name).report = report
    ticks(world)


def test_jobs_under_which_all_processes_were_killed_start_again(
    world: Any, runners: FakeRunners
) -> None:
    for name in ("a", "b"):
        run(world, runners, name)
    for runner in runners.running.values():
        runner.alive = False
    world.kill_plane()
    for name in ("a", "b"):
        ticks(world)
        statuses = [each["Status"] for each in describe(world, name)["SecondaryStatusTransitions"]]
        assert statuses.count("Restarting") == 1
        assert runners.one(name).spec.order.attempt == 1


def test_it_is_remembered_if_that_control_plane_is_killed_as_well(
    world: Any, runners: FakeRunners
) -> None:
    run(world, runners, "a")
    runners.one("a").alive = False
    world.plane, world.holder = world.new_plane()  # the claim of the one before still holds
    run(world, runners, "b")
    world.kill_plane()
    world.tick(10)
    ticks(world)
    assert runners.one("a").spec.order.attempt == 1
    assert runners.one("b").spec.order.attempt == 0


def test_a_job_that_lives_on_does_not_fail_those_that_went_down(
    world: Any, runners: FakeRunners
) -> None:
    for name in ("a", "b"):
        run(world, runners, name)
    runners.one("a").alive = False
    world.kill_plane()
    ticks(world)
    assert runners.one("a").spec.order.attempt == 1
    assert runners.one("b").spec.order.attempt == 0
    assert [status(world, name)[0] for name in ("a", "b")] == ["InProgress", "InProgress"]


def test_a_runner_whose_shim_outlived_it_was_killed_alone(world: Any, runners: FakeRunners) -> None:
    run(world, runners, "a")
    runners.one("a").alive = False
    runners.one("a").exit = ExitStatus(None, 9, world.now)
    world.kill_plane()
    ticks(world)
    assert status(world, "a")[0] == "Failed"
    assert "SIGKILL" in describe(world, "a")["FailureReason"]


def test_a_job_of_which_one_runner_lives_on_was_not_interrupted(
    world: Any, runners: FakeRunners
) -> None:
    create(world, "a", count=2)
    ticks(world)
    runners.one("a").report = BEGUN
    ticks(world)
    runners.one("a", "algo-2").alive = False
    world.kill_plane()
    ticks(world)
    assert status(world, "a")[0] == "Failed"


@pytest.mark.parametrize("machine_restarts", [False, True])
def test_a_job_that_was_being_started_when_its_control_plane_was_killed_was_not_interrupted(
    world: Any, runners: FakeRunners, monkeypatch: pytest.MonkeyPatch, machine_restarts: bool
) -> None:
    """What kills it later tells how it ends."""
    with monkeypatch.context() as patch:
        patch.setattr(runners, "start", killed)
        create(world, "a")
        with pytest.raises(Killed):
            ticks(world)
    if machine_restarts:
        monkeypatch.setattr("ridgeline_service.control.plane.boot_id", lambda: "the next")
    world.kill_plane()
    ticks(world)
    runners.one("a").report = BEGUN
    ticks(world)
    runners.one("a").alive = False
    ticks(world)
    assert status(world, "a")[0] == "Failed"


def test_a_job_whose_script_had_not_begun_has_nothing_to_lose(
    world: Any, runners: FakeRunners
) -> None:
    """But does not begin for ever."""
    create(world, "j")
    for attempt in range(3):
        ticks(world)
        assert runners.one("j").spec.order.attempt == attempt
        runners.one("j").report = LOADING
        runners.one("j").alive = False
    ticks(world)
    assert status(world, "j")[0] == "Failed"
    assert "The job runner is gone" in describe(world, "j")["FailureReason"]


def test_a_job_whose_script_had_begun_is_not_begun_again(world: Any, runners: FakeRunners) -> None:
    run(world, runners, "j")
    runners.one("j").alive = False
    ticks(world)
    assert status(world, "j")[0] == "Failed"


def test_nor_is_one_whose_report_was_lost_since(world: Any, runners: FakeRunners) -> None:
    run(world, runners, "j")
    runners.one("j").report = None
    runners.one("j").alive = False
    ticks(world)
    assert status(world, "j")[0] == "Failed"
