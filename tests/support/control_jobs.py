"""Training jobs of a control plane whose runners are values: how a test makes and watches them."""

from __future__ import annotations

from typing import Any

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-cpu-py312"

SPOT = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 600},
}


def create(world: Any, name: str, *, count: int = 1, **changes: Any) -> None:
    world.plane.training_jobs.create(
        {
            "TrainingJobName": name,
            "RoleArn": world.settings.role_arn,
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "OutputDataConfig": {"S3OutputPath": "s3://b/out"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": count,
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            **changes,
        }
    )


def describe(world: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = world.plane.training_jobs.describe({"TrainingJobName": name})
    return found


def status(world: Any, name: str) -> tuple[str, str]:
    found = describe(world, name)
    return found["TrainingJobStatus"], found["SecondaryStatus"]


def message(world: Any, name: str) -> str:
    """What stands beside the newest secondary status."""
    return str(describe(world, name)["SecondaryStatusTransitions"][-1]["StatusMessage"])


def ticks(world: Any, count: int = 4) -> None:
    for _ in range(count):
        world.tick(0.6)
