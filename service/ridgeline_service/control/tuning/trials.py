"""Trials as training jobs: the request that starts one, and what is kept of it while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ridgeline_service.control.tuning.spec import OBJECTIVE_PARAMETER, Definition, TuningSpec
from ridgeline_service.store.job_records import JobRecord, JobStatus
from ridgeline_service.store.tuning_records import TrialRecord
from ridgeline_service.training.causes import Cause

_AS_THEY_ARE = (
    "RoleArn",
    "InputDataConfig",
    "VpcConfig",
    "OutputDataConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "RetryStrategy",
    "Environment",
)
_RESOURCES = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")


def trial_name(tuning_name: str, number: int, random_part: str) -> str:
    """``NAME-001-1a2b3c4d``, as SageMaker names them."""
    return f"{tuning_name}-{number:03d}-{random_part[:8]}"


def tuning_name(trial: str) -> str:
    """Of the tuning job that named a trial so; an ARN has lost its capitals."""
    return trial.rsplit("-", 2)[0]


def training_request(
    definition: Definition, name: str, parameters: Mapping[str, str]
) -> dict[str, Any]:
    """The CreateTrainingJob request of one trial."""
    given = definition.request
    request: dict[str, Any] = {key: given[key] for key in _AS_THEY_ARE if key in given}
    request["TrainingJobName"] = name
    request["AlgorithmSpecification"] = dict(given["AlgorithmSpecification"])
    request["HyperParameters"] = {
        OBJECTIVE_PARAMETER: definition.objective.metric,
        **(given.get("StaticHyperParameters") or {}),
        **parameters,
    }
    request["ResourceConfig"] = resource_config(given)
    if "CheckpointConfig" in given:
        checkpoints = given["CheckpointConfig"]
        # Each has a folder of its own: one that starts must not go on where another one was.
        uri = f"{checkpoints['S3Uri'].rstrip('/')}/{name}"
        request["CheckpointConfig"] = {**checkpoints, "S3Uri": uri}
    return request


def refreshed(trial: TrialRecord, job: JobRecord | None, spec: TuningSpec, now: int) -> TrialRecord:
    """The trial as its training job is now; ``job`` is None where that was deleted."""
    if job is None:
        return replace(
            trial,
            status=JobStatus.FAILED,
            failure_reason="The training job was deleted.",
            ended_at=now,
            modified_at=now,
        )
    metric = spec.named(trial.definition).objective.metric
    final = next((each.value for each in job.metrics if each.name == metric), None)
    return replace(
        trial,
        status=job.status,
        failure_reason=job.failure_reason,
        retryable=bool(job.cause) and Cause(job.cause).retried,
        objective=final if job.status.ended else None,
        started_at=job.started_at,
        ended_at=job.ended_at,
        modified_at=job.modified_at,
    )


def resource_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """ResourceConfig of a training job. Of instance types to choose among, the first is taken."""
    tuned = given.get("HyperParameterTuningResourceConfig")
    if tuned is None:
        return dict(given.get("ResourceConfig") or {})
    first = (tuned.get("InstanceConfigs") or [{}])[0]
    return {key: value for key, value in {**tuned, **first}.items() if key in _RESOURCES}
