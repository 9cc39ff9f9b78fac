"""Tuning jobs over real rows for tests, with runners that are values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fake_runners import FakeRunners

from ridgeline_service.training.report import MetricValue, Report

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-cpu-py312"


def request(name: str = "t", **changes: Any) -> dict[str, Any]:
    config = {
        "Strategy": "Random",
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ParameterRanges": {
            "ContinuousParameterRanges": [{"Name": "lr", "MinValue": "0", "MaxValue": "1"}]
        },
        "RandomSeed": 7,
        **changes.pop("config", {}),
    }
    definition = {
        "StaticHyperParameters": {"epochs": "9"},
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
        },
        "RoleArn": "arn:aws:iam::123456789012:role/r",
        "OutputDataConfig": {"S3OutputPath": "s3://b/out"},
        "HyperParameterTuningResourceConfig": {
            "InstanceType": "ml.m5.large",
            "InstanceCount": 1,
            "VolumeSizeInGB": 1,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **changes.pop("definition", {}),
    }
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": config,
        "TrainingJobDefinition": definition,
        **changes,
    }


def create(world: Any, name: str = "t", **changes: Any) -> None:
    world.plane.tuning_jobs.create(request(name, **changes))


def describe(world: Any, name: str = "t") -> dict[str, Any]:
    found = world.plane.tuning_jobs.describe({"HyperParameterTuningJobName": name})
    return dict(found)


def trials(world: Any, name: str = "t", **query: Any) -> list[dict[str, Any]]:
    found = world.plane.tuning_jobs.list_training_jobs(
        {"HyperParameterTuningJobName": name, "MaxResults": 100, **query}
    )
    return list(found["TrainingJobSummaries"])


def ticks(world: Any, count: int = 4) -> None:
    for _ in range(count):
        world.tick(0.6)


def running(runners: FakeRunners) -> list[str]:
    return sorted(each.spec.order.job for each in runners.running.values() if each.alive)


def finish(world: Any, runners: FakeRunners, job: str, loss: float | None) -> None:
    if loss is not None:
        value = MetricValue("loss", loss, int(world.now * 1e6))
        runners.one(job).report = Report(metrics=(value,), training_started_at=1)
    runners.end(job)


def finish_all(world: Any, runners: FakeRunners, loss: Callable[[str], float | None]) -> None:
    for _ in range(40):
        ticks(world, 3)
        if describe(world)["HyperParameterTuningJobStatus"] not in ("InProgress", "Stopping"):
            return
        for job in running(runners):
            finish(world, runners, job, loss(job))
    raise AssertionError(describe(world))
