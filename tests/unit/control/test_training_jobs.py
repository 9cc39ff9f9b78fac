"""The life of training jobs over real rows, with runners that are values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from control_jobs import SPOT, create, describe, status, ticks
from fake_runners import FakeRunners

from ridgeline_service.control.jobs.ending import Ended, may_restart, verdict_of
from ridgeline_service.control.jobs.life import HUNG_AFTER_STOP_S
from ridgeline_service.control.jobs.queue import PASSED_FOR_S
from ridgeline_service.errors import ResourceInUse, ValidationException
from ridgeline_service.placement.machine import GIB
from ridgeline_service.runtime.keeper import ExitStatus
from ridgeline_service.settings import Settings
from ridgeline_service.store.states import Desired
from ridgeline_service.training.causes import Cause
from ridgeline_service.training.report import Ending, MetricValue, Report, Transition


def test_a_job_is_what_its_runner_reports(jobs: Any, runners: FakeRunners) -> None:
    world = jobs()
    create(world, "j")
    ticks(world)
    assert status(world, "j") == ("InProgress", "Starting")
    runners.one("j").report = Report(
        transitions=(Transition("Downloading", 5, "d"), Transition("Training", 9, "t")),
        training_started_at=9,
        metrics=(MetricValue("loss", 0.5, 9),),
    )
    ticks(world)
    assert status(world, "j") == ("InProgress", "Training")
    runners.end("j")
    ticks(world)
    found = describe(world, "j")
    assert (found["TrainingJobStatus"], found["SecondaryStatus"]) == ("Completed", "Completed")
    assert found["ModelArtifacts"] == {"S3ModelArtifacts": "s3://b/m.tar.gz"}
    assert [metric["Value"] for metric in found["FinalMetricDataList"]] == [0.5]
    assert runners.running == {}


def test_jobs_wait_for_room_in_the_order_in_which_they_came(
    jobs: Any, runners: FakeRunners
) -> None:
    world = jobs(settings=Settings(max_instances=2))
    for name, count in (("first", 1), ("pair", 2), ("last", 1)):
        create(world, name, count=count)
        world.now += PASSED_FOR_S
    ticks(world)
    assert [runner.spec.order.job for runner in runners.running.values()] == ["first"]
    assert status(world, "pair") == ("InProgress", "Pending")
    moment = describe(world, "pair")["SecondaryStatusTransitions"][-1]
    assert "1 of at most 2 run, and 2 are needed" in moment["StatusMessage"]
    runners.end("first")
    ticks(world)
    assert {runner.spec.order.job for runner in runners.running.values()} == {"pair"}
    world.plane.training_jobs.stop({"TrainingJobName": "last"})
    ticks(world)
    assert status(world, "last") == ("Stopped", "Stopped")
    for host in ("algo-1", "algo-2"):
        runners.end("pair", host)
    ticks(world)
    assert status(world, "pair")[0] == "Completed"


def test_jobs_and_replicas_share_the_room(jobs: Any, runners: FakeRunners) -> None:
    world = jobs(memory_bytes=2 * GIB)
    world.deploy("e")
    create(world, "a")
    create(world, "b")
    ticks(world)
    assert [runner.spec.order.job for runner in runners.running.values()] == ["a"]
    assert (
        "Waiting for memory"
        in describe(world, "b")["SecondaryStatusTransitions"][-1]["StatusMessage"]
    )


def test_a_runner_knows_whether_it_has_the_machine_to_itself(
    jobs: Any, runners: FakeRunners
) -> None:
    world = jobs(settings=Settings(max_instances=3))
    create(world, "first")
    ticks(world)
    create(world, "second")
    ticks(world)
    alone = {name: runners.one(name).spec.order.confinement.alone for name in ("first", "second")}
    assert alone == {"first": True, "second": False}


def test_one_failed_instance_ends_them_all(jobs: Any, runners: FakeRunners) -> None:
    world = jobs()
    create(world, "j", count=2)
    ticks(world)
    runners.end(
        "j", "algo-2", outcome="failed", cause=Cause.SCRIPT_FAILED, message="AlgorithmError: x"
    )
    ticks(world)
    found = describe(world, "j")
    assert (found["TrainingJobStatus"], found["FailureReason"]) == ("Failed", "AlgorithmError: x")
    assert runners.running == {}


def test_a_killed_runner_starts_again_as_often_as_the_job_allows(
    jobs: Any, runners: FakeRunners
) -> None:
    world = jobs()
    create(world, "j", RetryStrategy={"MaximumRetryAttempts": 2})
    for attempt in range(3):
        ticks(world)
        assert runners.one("j").spec.order.attempt == attempt
        runners.one("j").alive = False
    ticks(world)
    found = describe(world, "j")
    assert found["TrainingJobStatus"] == "Failed"
    assert found["FailureReason"].startswith("InternalServerError: The job runner is gone")
    statuses = [moment["Status"] for moment in found["SecondaryStatusTransitions"]]
    assert statuses.count("Restarting") == 2


def test_a_control_plane_that_was_killed_finds_its_jobs(jobs: Any, runners: FakeRunners) -> None:
    world = jobs()
    create(world, "running")
    create(world, "ended")
    ticks(world)
    runners.end("ended")
    world.kill_plane()
    ticks(world)
    assert len(runners.started) == 2
    assert status(world, "ended")[0] == "Completed"
    assert status(world, "running")[0] == "InProgress"
    assert any(event["change"] == "Adopted" for event in world.plane.events.list())


def test_a_runner_that_nobody_knows_is_ended(jobs: Any, runners: FakeRunners) -> None:
    world = jobs()
    create(world, "j")
    ticks(world)
    spec = runners.one("j").spec
    for name in ("stranger", "leftover"):
        runners.start(replace(spec, id=name))
    runners.running["leftover"].alive = False
    world.kill_plane()
    assert set(runners.running) == {spec.id}


def test_a_stop_is_passed_on_and_a_second_one_is_no_error(jobs: Any, runners: FakeRunners) -> None:
    world = jobs()
    create(world, "j")
    ticks(world)
    for _ in range(2):
        world.plane.training_jobs.stop({"TrainingJobName": "j"})
    assert status(world, "j") == ("Stopping", "Stopping")
    with pytest.raises(ResourceInUse, match="Stop it first"):
        world.plane.training_jobs.delete({"TrainingJobName": "j"})
    ticks(world)
    assert set(runners.one("j").asked) == {Cause.STOP_REQUESTED}
    runners.end("j", outcome="stopped", cause=Cause.STOP_REQUESTED)
    ticks(world)
    assert status(world, "j") == ("Stopped", "Stopped")
    with pytest.raises(ValidationException, match="in status Stopped"):
        world.plane.training_jobs.stop({"TrainingJobName": "j"})


def test_a_stop_while_the_model_is_uploaded_is_a_stop(jobs: Any, runners: FakeRunners) -> None:
    world = jobs()
    create(world, "j")
    ticks(world)
    runners.one("j").report = Report(transitions=(Transition("Uploading", 5, "u"),))
    world.plane.training_jobs.stop({"TrainingJobName": "j"})
    ticks(world)
    assert status(world, "j") == ("Stopping", "Stopping")
    runners.end("j")
    ticks(world)
    assert status(world, "j") == ("Stopped", "Stopped")
    assert describe(world, "j")["ModelArtifacts"] == {"S3ModelArtifacts": "s3://b/m.tar.gz"}


def test_a_runner_that_ignores_a_stop_is_killed(jobs: Any, runners: FakeRunners) -> None:
    world = jobs()
    create(world, "deaf")
    ticks(world)
    runners.one("deaf").report = Report(transitions=(Transition("Training", 9, "t"),))
    ticks(world)
    world.tick(1000)
    world.plane.training_jobs.stop({"TrainingJobName": "deaf"})
    world.tick(Settings().job_stop_grace_s)
    ticks(world)
    assert status(world, "deaf") == ("Stopping", "Stopping")
    world.tick(HUNG_AFTER_STOP_S)
    ticks(world)
    assert status(world, "deaf") == ("Stopped", "Stopped")


def test_a_runner_that_keeps_what_its_script_made_may_take_its_time(
    jobs: Any, runners: FakeRunners
) -> None:
    world = jobs()
    create(world, "j")
    ticks(world)
    world.plane.training_jobs.stop({"TrainingJobName": "j"})
    stopping = Report(transitions=(Transition("Stopping", 9, "s"),), training_ended_at=10)
    runners.one("j").report = stopping
    ticks(world)
    world.tick(3600)
    ticks(world)
    assert runners.one("j").alive
    assert status(world, "j") == ("Stopping", "Stopping")


def test_waiting_too_long_stops_a_job(jobs: Any, runners: FakeRunners) -> None:
    world = jobs(settings=Settings(max_instances=1))
    create(world, "first")
    times = {"MaxRuntimeInSeconds": 5, "MaxWaitTimeInSeconds": 10}
    create(world, "late", EnableManagedSpotTraining=True, StoppingCondition=times)
    ticks(world, 3)
    world.tick(11)
    ticks(world)
    assert status(world, "late") == ("Stopped", "MaxWaitTimeExceeded")


def ended(outcome: str | None, cause: Cause = Cause.NONE, at: int = 1, **more: Any) -> Ended:
    ending = None if outcome is None else Ending(outcome, cause, f"of {at}", at)  # type: ignore[arg-type]
    return Ended(Report(ending=ending), more.pop("exit", None), **more)


def test_the_first_failure_tells() -> None:
    verdict = verdict_of(
        [
            ended("completed"),
            ended("failed", Cause.OUT_OF_MEMORY, at=5),
            ended("failed", Cause.SCRIPT_FAILED, at=3),
            ended(None, exit=ExitStatus(None, 9, 0.0)),
        ]
    )
    assert (verdict.cause, verdict.reason) == (Cause.SCRIPT_FAILED, "of 3")


def test_a_killed_runner_is_told_from_a_service_that_went_down() -> None:
    killed = verdict_of([ended(None, exit=ExitStatus(None, 9, 0.0))])
    assert killed.cause is Cause.RUNNER_DIED
    assert "SIGKILL" in killed.reason
    assert verdict_of([ended(None, interrupted=True)]).cause is Cause.INTERRUPTED
    assert verdict_of([ended("interrupted", Cause.INTERRUPTED)]).cause is Cause.INTERRUPTED
    stopped = [ended("stopped", Cause.MAX_RUNTIME), ended("completed")]
    assert verdict_of(stopped).cause is Cause.MAX_RUNTIME
    assert verdict_of([ended("completed")]).cause is Cause.NONE


def test_the_end_of_an_old_job_shows_when_it_is_told(jobs: Any, runners: FakeRunners) -> None:
    world = jobs()
    runners.tells = True
    create(world, "j")
    ticks(world)
    world.tick(300)  # from now on it is looked at every two seconds
    world.tick(0.1)
    runner = runners.one("j").spec.id
    runners.end("j")
    world.tick(0.1)
    assert status(world, "j")[0] == "InProgress"
    runners.told[runner]()
    world.tick(0.1)
    assert status(world, "j")[0] == "Completed"


@pytest.mark.parametrize(
    ("cause", "request_", "restarts"),
    [
        (Cause.INTERRUPTED, {}, True),
        (Cause.RUNNER_DIED, {}, False),
        (Cause.RUNNER_DIED, {"CheckpointConfig": {"S3Uri": "s3://b/c"}}, True),
        (Cause.RUNNER_DIED, SPOT, True),
        (Cause.SCRIPT_FAILED, {"CheckpointConfig": {"S3Uri": "s3://b/c"}}, False),
        (Cause.DATA_INVALID, {"RetryStrategy": {"MaximumRetryAttempts": 3}}, False),
        (Cause.DATA_UNREACHABLE, {"RetryStrategy": {"MaximumRetryAttempts": 3}}, True),
        (Cause.NONE, SPOT, False),
    ],
)
def test_what_starts_again(
    jobs: Any, cause: Cause, request_: dict[str, Any], restarts: bool
) -> None:
    from ridgeline_service.store import jobs as rows

    world = jobs()
    create(world, "j", **request_)
    with world.databases[-1].read() as connection:
        [job] = rows.living_jobs(connection)
    assert may_restart(job, cause) is restarts
    assert not may_restart(replace(job, desired=Desired.STOPPED), cause)


def test_our_own_failure_with_what_a_script_made_does_not_begin_it_again(
    jobs: Any, runners: FakeRunners
) -> None:
    world = jobs()
    for name, over in (("made", 5), ("making", None)):
        create(world, name, CheckpointConfig={"S3Uri": "s3://b/c"})
        ticks(world)
        runners.one(name).report = Report(training_started_at=3, training_ended_at=over)
        runners.end(name, outcome="failed", cause=Cause.INTERNAL, message="InternalServerError: x")
        ticks(world)
    assert status(world, "made")[0] == "Failed"
    assert status(world, "making")[0] == "InProgress"


def test_what_tensorboard_shows_lies_apart_for_every_job(jobs: Any, runners: FakeRunners) -> None:
    world = jobs()
    create(world, "j", TensorBoardOutputConfig={"S3OutputPath": "s3://b/tb/"})
    create(
        world,
        "k",
        TensorBoardOutputConfig={"S3OutputPath": "s3://b/tb", "LocalPath": "/opt/ml/runs/"},
    )
    ticks(world)
    found = [runners.one(name).spec.order.tensorboard for name in ("j", "k")]
    assert [(each.path, each.uri) for each in found if each is not None] == [
        ("/opt/ml/output/tensorboard", "s3://b/tb/j/tensorboard-output"),
        ("/opt/ml/runs", "s3://b/tb/k/tensorboard-output"),
    ]


def test_the_folders_of_a_job_are_found_however_their_paths_are_spelt(
    jobs: Any, runners: FakeRunners
) -> None:
    world = jobs()
    create(
        world,
        "j",
        TensorBoardOutputConfig={"S3OutputPath": "s3://b/tb", "LocalPath": "/opt/ml//runs/./a"},
        CheckpointConfig={"S3Uri": "s3://b/c", "LocalPath": "/opt/ml/./kept//now/"},
    )
    ticks(world)
    order = runners.one("j").spec.order
    assert order.tensorboard is not None
    assert (order.tensorboard.path, order.checkpoint_path) == ("/opt/ml/runs/a", "/opt/ml/kept/now")


def test_a_shell_in_a_running_job_is_refused(jobs: Any) -> None:
    world = jobs()
    create(world, "j")
    shell = {"TrainingJobName": "j", "RemoteDebugConfig": {"EnableRemoteDebug": True}}
    with pytest.raises(ValidationException, match="EnableRemoteDebug"):
        world.plane.training_jobs.update(shell)
    assert "RemoteDebugConfig" not in describe(world, "j")
