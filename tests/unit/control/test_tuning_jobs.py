"""The life of tuning jobs over real rows, with runners that are values."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from fake_runners import FakeRunners
from tuning_rows import create, describe, finish, finish_all, request, running, ticks, trials

from ridgeline_service.control.tuning.trials import trial_name, tuning_name
from ridgeline_service.errors import ResourceInUse, ResourceNotFound, ValidationException
from ridgeline_service.settings import Settings
from ridgeline_service.training.causes import Cause


@pytest.fixture
def world(make_world: Callable[..., Any], runners: FakeRunners) -> Any:
    return make_world(runners=runners, settings=Settings(max_instances=4))


def test_trials_run_in_parallel_until_the_best_is_found(world: Any, runners: FakeRunners) -> None:
    create(world, Tags=[{"Key": "team", "Value": "red"}])
    ticks(world)
    first = running(runners)
    assert [name[:6] for name in first] == ["t-001-", "t-002-"]
    order = runners.one(first[0]).spec.order
    assert order.hyperparameters["_tuning_objective_metric"] == "loss"
    assert order.hyperparameters["epochs"] == "9"
    assert 0 <= float(order.hyperparameters["lr"]) <= 1
    assert describe(world)["TrainingJobStatusCounters"]["InProgress"] == 2
    values = {"t-001": 0.5, "t-002": 0.2, "t-003": 0.9, "t-004": 0.3}
    finish_all(world, runners, lambda job: values[job[:5]])
    found = describe(world)
    assert found["HyperParameterTuningJobStatus"] == "Completed"
    assert found["TrainingJobStatusCounters"]["Completed"] == 4
    assert found["ObjectiveStatusCounters"] == {"Succeeded": 4, "Pending": 0, "Failed": 0}
    best = found["BestTrainingJob"]
    assert best["TrainingJobName"].startswith("t-002-")
    assert best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == 0.2
    static = found["TrainingJobDefinition"]["StaticHyperParameters"]
    assert static["_tuning_objective_metric"] == "loss"
    ranked = trials(world, SortBy="FinalObjectiveMetricValue", SortOrder="Ascending")
    assert [each["TrainingJobName"][:5] for each in ranked] == ["t-002", "t-004", "t-001", "t-003"]
    job = world.plane.training_jobs.describe({"TrainingJobName": best["TrainingJobName"]})
    assert job["TuningJobArn"] == found["HyperParameterTuningJobArn"]
    tags = world.plane.tags.list({"ResourceArn": best["TrainingJobArn"]})["Tags"]
    assert tags == [{"Key": "team", "Value": "red"}]


def test_a_page_goes_on_where_the_last_one_ended(world: Any, runners: FakeRunners) -> None:
    create(world)
    finish_all(world, runners, lambda job: float(job[4]))
    query = {"HyperParameterTuningJobName": "t", "SortBy": "FinalObjectiveMetricValue"}
    names, token = [], None
    while True:
        page = world.plane.tuning_jobs.list_training_jobs(
            {**query, "MaxResults": 1, **({"NextToken": token} if token else {})}
        )
        names += [each["TrainingJobName"][:5] for each in page["TrainingJobSummaries"]]
        token = page.get("NextToken")
        if token is None:
            break
    assert names == ["t-001", "t-002", "t-003", "t-004"]


@pytest.mark.parametrize("seed", range(4))
def test_a_plane_killed_at_any_moment_starts_every_trial_once(
    world: Any, runners: FakeRunners, seed: int
) -> None:
    chance = random.Random(seed)
    limits = {"MaxNumberOfTrainingJobs": 8, "MaxParallelTrainingJobs": 3}
    create(world, config={"ResourceLimits": limits, "Strategy": "Bayesian"})
    for _ in range(400):
        if describe(world)["HyperParameterTuningJobStatus"] == "Completed":
            break
        if chance.random() < 0.3:
            world.kill_plane()
        world.tick(chance.random())
        for job in running(runners):
            if chance.random() < 0.3:
                finish(world, runners, job, chance.random())
    names = [each["TrainingJobName"] for each in trials(world)]
    assert [name[:5] for name in names] == [f"t-{number:03d}" for number in range(1, 9)]
    assert len(runners.started) == 8
    assert describe(world)["TrainingJobStatusCounters"]["Completed"] == 8


def test_the_same_seed_tries_the_same(world: Any, runners: FakeRunners) -> None:
    for name in ("t", "u"):
        create(world, name)
        ticks(world, 8)
    tried = [[each["TunedHyperParameters"] for each in trials(world, name)] for name in ("t", "u")]
    assert tried[0] == tried[1]
    assert len(tried[0]) == 2


def test_a_stop_ends_the_trials_first(world: Any, runners: FakeRunners) -> None:
    create(world)
    ticks(world)
    for _ in range(2):
        world.plane.tuning_jobs.stop({"HyperParameterTuningJobName": "t"})
    ticks(world)
    assert describe(world)["HyperParameterTuningJobStatus"] == "Stopping"
    with pytest.raises(ResourceInUse, match="Stop it first"):
        world.plane.tuning_jobs.delete({"HyperParameterTuningJobName": "t"})
    for job in running(runners):
        assert runners.one(job).asked
        runners.end(job, outcome="stopped", cause=Cause.STOP_REQUESTED)
    ticks(world)
    found = describe(world)
    assert found["HyperParameterTuningJobStatus"] == "Stopped"
    assert found["TrainingJobStatusCounters"]["Stopped"] == 2
    with pytest.raises(ValidationException, match="in status Stopped"):
        world.plane.tuning_jobs.stop({"HyperParameterTuningJobName": "t"})
    world.plane.tuning_jobs.delete({"HyperParameterTuningJobName": "t"})
    with pytest.raises(ResourceNotFound, match="can't find a tuning job"):
        describe(world)
    assert len(world.plane.training_jobs.list({"NameContains": "t-0"})["TrainingJobSummaries"]) == 2


def test_names_keep_their_capitals() -> None:
    assert tuning_name(trial_name("My-Search-2", 7, "0123456789ab")) == "My-Search-2"


def test_a_warm_start_knows_what_its_parents_found(world: Any, runners: FakeRunners) -> None:
    create(world)
    finish_all(world, runners, lambda job: float(job[4]))
    best = describe(world)["BestTrainingJob"]
    world.plane.training_jobs.delete({"TrainingJobName": best["TrainingJobName"]})
    warm = {
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "t"}],
        "WarmStartType": "IdenticalDataAndAlgorithm",
    }
    algorithm = request()["TrainingJobDefinition"]["AlgorithmSpecification"]
    bare = {key: value for key, value in algorithm.items() if key != "MetricDefinitions"}
    create(
        world,
        "child",
        config={"Strategy": "Bayesian"},
        definition={"AlgorithmSpecification": bare},
        WarmStartConfig=warm,
    )
    world.plane.tuning_jobs.delete({"HyperParameterTuningJobName": "t"})
    for _ in range(4):
        ticks(world)
        for job in running(runners):
            finish(world, runners, job, 8.0)
    ticks(world)
    found = describe(world, "child")
    assert found["OverallBestTrainingJob"]["TrainingJobName"] == best["TrainingJobName"]
    assert found["OverallBestTrainingJob"]["TuningJobName"] == "t"
    assert found["BestTrainingJob"]["TrainingJobName"].startswith("child-")
    other = {"ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "child"}]}
    other_goal = {"Type": "Maximize", "MetricName": "loss"}
    with pytest.raises(ValidationException, match="another objective"):
        create(
            world,
            "wrong",
            config={"HyperParameterTuningJobObjective": other_goal},
            WarmStartConfig={**warm, **other},
        )
    create(
        world,
        "transfer",
        config={"HyperParameterTuningJobObjective": other_goal},
        WarmStartConfig={**other, "WarmStartType": "TransferLearning"},
    )
    running_one = {"ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "transfer"}]}
    with pytest.raises(ValidationException, match="is InProgress"):
        create(world, "early", WarmStartConfig={**warm, **running_one})


def test_a_warm_start_may_bring_its_code_anew_and_is_told_what_else_differs(
    world: Any, runners: FakeRunners
) -> None:
    def definition(**places: str) -> dict[str, Any]:
        return {"InputDataConfig": [channel(*item) for item in places.items()]}

    create(world, definition=definition(train="s3://b/d", code="s3://b/1", sm_drivers="s3://b/2"))
    finish_all(world, runners, lambda job: float(job[4]))
    warm = {
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "t"}],
        "WarmStartType": "IdenticalDataAndAlgorithm",
    }

    def refusal(**changes: Any) -> str:
        with pytest.raises(ValidationException) as refused:
            create(world, "child", WarmStartConfig=warm, **changes)
        return refused.value.message

    same = {"code": "s3://b/3", "sm_drivers": "s3://b/4"}
    said = refusal(definition=definition(train="s3://b/e", test="s3://b/f", **same))
    assert "other input data (channels 'test', 'train')" in said
    assert "image" not in said
    assert "objective" not in said
    said = refusal(
        definition=definition(train="s3://b/d", **same),
        config={"HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "loss"}},
    )
    assert "has another objective" in said
    assert "data" not in said.partition("With WarmStartType")[0]
    create(world, "child", WarmStartConfig=warm, definition=definition(train="s3://b/d", **same))


def channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def test_what_no_trial_could_be_is_refused_at_once(world: Any) -> None:
    algorithm = {**request()["TrainingJobDefinition"]["AlgorithmSpecification"]}
    bad = {**algorithm, "TrainingImage": "nobody/knows:1"}
    with pytest.raises(ValidationException):
        create(world, definition={"AlgorithmSpecification": bad})
    create(world)
    with pytest.raises(ResourceInUse, match="must be unique"):
        create(world)
    listed = world.plane.tuning_jobs.list({})["HyperParameterTuningJobSummaries"]
    assert [(each["HyperParameterTuningJobName"], each["Strategy"]) for each in listed] == [
        ("t", "Random")
    ]


def test_checkpoints_of_trials_lie_apart(world: Any, runners: FakeRunners) -> None:
    create(world, definition={"CheckpointConfig": {"S3Uri": "s3://b/c/"}})
    ticks(world)
    found = {runners.one(job).spec.order.checkpoint_uri for job in running(runners)}
    assert found == {f"s3://b/c/{job}" for job in running(runners)}


def test_several_definitions_take_turns(world: Any, runners: FakeRunners) -> None:
    given = request()
    config = dict(given["HyperParameterTuningJobConfig"])
    one = {
        **given.pop("TrainingJobDefinition"),
        "HyperParameterRanges": config.pop("ParameterRanges"),
        "TuningObjective": config.pop("HyperParameterTuningJobObjective"),
    }
    several = [{**one, "DefinitionName": name} for name in ("a", "b")]
    world.plane.tuning_jobs.create(
        {**given, "HyperParameterTuningJobConfig": config, "TrainingJobDefinitions": several}
    )
    finish_all(world, runners, lambda job: float(job[4]))
    names = [each["TrainingJobDefinitionName"] for each in trials(world)]
    assert names == ["a", "b", "a", "b"]
    points = [each["TunedHyperParameters"]["lr"] for each in trials(world)]
    assert len(set(points)) == 4
    assert describe(world)["BestTrainingJob"]["TrainingJobDefinitionName"] == "a"
    assert len(describe(world)["TrainingJobDefinitions"]) == 2
