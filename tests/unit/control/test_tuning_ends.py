"""Why a search starts no more trials, and why it ends one, over real rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fake_runners import FakeRunners
from tuning_rows import create, describe, finish, finish_all, running, ticks, trials

from ridgeline_service.settings import Settings
from ridgeline_service.telemetry.samples import Metric, Sample, SampleStore
from ridgeline_service.training.causes import Cause
from ridgeline_service.training.report import MetricValue, Report
from ridgeline_service.training.watching import NAMESPACE


@pytest.fixture
def world(make_world: Callable[..., Any], runners: FakeRunners) -> Any:
    return make_world(runners=runners, settings=Settings(max_instances=4))


def test_failures_explain_themselves(world: Any, runners: FakeRunners) -> None:
    create(world)
    for _ in range(2):
        ticks(world)
        for job in running(runners):
            failed = {"cause": Cause.SCRIPT_FAILED, "message": "AlgorithmError: no data"}
            runners.end(job, outcome="failed", **failed)
    ticks(world)
    found = describe(world)
    assert found["HyperParameterTuningJobStatus"] == "Failed"
    assert found["FailureReason"].startswith("All training jobs failed.")
    assert "AlgorithmError: no data" in found["FailureReason"]
    assert found["TrainingJobStatusCounters"]["NonRetryableError"] == 4
    create(world, "silent")
    for _ in range(2):
        ticks(world)
        for job in running(runners):
            finish(world, runners, job, None)
    ticks(world)
    found = describe(world, "silent")
    assert "No objective metrics found after running 4 training jobs" in found["FailureReason"]
    assert found["ObjectiveStatusCounters"]["Failed"] == 4


@pytest.mark.parametrize("silent", [False, True])
def test_a_search_that_comes_to_no_value_is_given_up(
    world: Any, runners: FakeRunners, silent: bool
) -> None:
    failed = {"outcome": "failed", "cause": Cause.SCRIPT_FAILED, "message": "AlgorithmError"}
    create(world, config={"ResourceLimits": {"MaxParallelTrainingJobs": 2}})
    for _ in range(8):
        ticks(world)
        for job in running(runners):
            runners.end(job, **({} if silent else failed))
    ticks(world)
    found = describe(world)
    assert found["HyperParameterTuningJobStatus"] == "Failed"
    assert len(trials(world)) <= 12


@pytest.mark.parametrize(
    ("criteria", "loss", "most"),
    [
        ({"TargetObjectiveMetricValue": 0.5}, lambda number: 1.0 if number < 3 else 0.4, 5),
        (
            {"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}},
            lambda number: 1.0 - 0.001 * number,
            7,
        ),
    ],
)
def test_criteria_end_a_search_early(
    world: Any,
    runners: FakeRunners,
    criteria: dict[str, Any],
    loss: Callable[[int], float],
    most: int,
) -> None:
    limits = {"MaxNumberOfTrainingJobs": 50, "MaxParallelTrainingJobs": 2}
    create(world, config={"ResourceLimits": limits, "TuningJobCompletionCriteria": criteria})
    finish_all(world, runners, lambda job: loss(int(job[2:5])))
    assert describe(world)["HyperParameterTuningJobStatus"] == "Completed"
    assert len(trials(world)) <= most


def test_a_criterion_that_has_held_ends_the_search_whatever_its_last_trials_found(
    world: Any, runners: FakeRunners
) -> None:
    limits = {"MaxNumberOfTrainingJobs": 50, "MaxParallelTrainingJobs": 2}
    criteria = {"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}}
    create(world, config={"ResourceLimits": limits, "TuningJobCompletionCriteria": criteria})
    ticks(world)
    slow = running(runners)[1]
    while not runners.one(slow).asked:
        [quick] = [job for job in running(runners) if job != slow]
        finish(world, runners, quick, 5.0)
        ticks(world)
    world.kill_plane()
    value = MetricValue("loss", 1.0, int(world.now * 1e6))
    runners.one(slow).report = Report(metrics=(value,), training_started_at=1)
    runners.end(slow, outcome="stopped", cause=Cause.STOP_REQUESTED)
    ticks(world)
    found = describe(world)
    assert found["HyperParameterTuningJobStatus"] == "Completed"
    assert found["BestTrainingJob"]["TrainingJobName"] == slow
    assert found["TrainingJobStatusCounters"] | {"RetryableError": 0} == {
        "Completed": 4,
        "InProgress": 0,
        "RetryableError": 0,
        "NonRetryableError": 0,
        "Stopped": 1,
    }


def test_a_search_that_is_ending_can_still_be_stopped(world: Any, runners: FakeRunners) -> None:
    limits = {"MaxNumberOfTrainingJobs": 50, "MaxParallelTrainingJobs": 2}
    criteria = {"TargetObjectiveMetricValue": 0.5}
    create(world, config={"ResourceLimits": limits, "TuningJobCompletionCriteria": criteria})
    ticks(world)
    quick, slow = running(runners)
    finish(world, runners, quick, 0.1)
    ticks(world)
    assert runners.one(slow).asked
    world.plane.tuning_jobs.stop({"HyperParameterTuningJobName": "t"})
    runners.end(slow, outcome="stopped", cause=Cause.STOP_REQUESTED)
    ticks(world)
    assert describe(world)["HyperParameterTuningJobStatus"] == "Stopped"


def test_the_time_of_a_search_is_bounded(world: Any, runners: FakeRunners) -> None:
    limits = {"MaxParallelTrainingJobs": 1, "MaxRuntimeInSeconds": 120}
    create(world, config={"ResourceLimits": limits})
    ticks(world)
    world.tick(121)
    ticks(world)
    [job] = running(runners)
    runners.end(job, outcome="stopped", cause=Cause.STOP_REQUESTED)
    ticks(world)
    assert describe(world)["HyperParameterTuningJobStatus"] == "Stopped"


def report_curve(world: Any, job: str, values: list[float]) -> None:
    metric = Metric(NAMESPACE, "loss", (("TrainingJobName", job),))
    store = SampleStore(world.data_dir.samples)
    store.put(
        [
            Sample(metric, world.now + step / 1e3, "None", 1.0, value, value, value)
            for step, value in enumerate(values)
        ]
    )
    store.close()


def test_early_stopping_ends_what_the_median_beats(world: Any, runners: FakeRunners) -> None:
    limits = {"MaxNumberOfTrainingJobs": 5, "MaxParallelTrainingJobs": 1}
    create(world, config={"ResourceLimits": limits, "TrainingJobEarlyStoppingType": "Auto"})
    for _ in range(3):
        ticks(world)
        [job] = running(runners)
        report_curve(world, job, [1.0, 0.5, 0.1])
        finish(world, runners, job, 0.1)
        ticks(world)
    [job] = running(runners)
    report_curve(world, job, [3.0, 2.0])
    ticks(world)
    assert runners.one(job).asked == [Cause.STOP_REQUESTED] * len(runners.one(job).asked)
    assert runners.one(job).asked
    runners.end(job, outcome="stopped", cause=Cause.STOP_REQUESTED)
    ticks(world)
    assert describe(world)["TrainingJobStatusCounters"]["Stopped"] == 1
    assert len(running(runners)) == 1
