"""Requests for training jobs that contradict themselves, or ask for nothing, are refused."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline_service.control.jobs.checking import check_training
from ridgeline_service.control.tuning.spec import Definition, Objective
from ridgeline_service.control.tuning.trials import training_request
from ridgeline_service.errors import ValidationException

ONE = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
GROUP = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "InstanceGroupName": "g"}
METRIC = {"Name": "loss", "Regex": "loss=([0-9.]+)"}
BELOW = "Member must have value greater than or equal to 1"
WAIT = (
    "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
    "MaxRuntimeInSeconds"
)


def request(algorithm: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "AlgorithmSpecification": {"TrainingImage": "i", "TrainingInputMode": "File"}
        | (algorithm or {}),
        "OutputDataConfig": {"S3OutputPath": "s3://b/out"},
        "ResourceConfig": ONE,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **changes,
    }


def channel(name: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://b/d/"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def spot(**times: int) -> dict[str, Any]:
    return {"EnableManagedSpotTraining": True, "StoppingCondition": times}


def metric(expression: str) -> dict[str, Any]:
    return request({"MetricDefinitions": [{**METRIC, "Regex": expression}]})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            request(ResourceConfig={**ONE, "InstanceCount": 0}),
            f"1 validation error detected: Value '0' at 'resourceConfig.instanceCount' failed to "
            f"satisfy constraint: {BELOW}",
        ),
        (request(ResourceConfig={**ONE, "VolumeSizeInGB": 0}), "'resourceConfig.volumeSizeInGB'"),
        (request(ResourceConfig={**ONE, "InstanceGroups": [GROUP]}), "one or the other"),
        (request(ResourceConfig={"VolumeSizeInGB": 1, "InstanceGroups": [GROUP]}), "unlike"),
        (request({"AlgorithmName": "a"}), "a TrainingImage and an AlgorithmName"),
        *(
            (request(InputDataConfig=[channel(name)]), f"ChannelName {name!r} names no folder")
            for name in (".", "..")
        ),
        (request({"MetricDefinitions": [METRIC, METRIC]}), "metric 'loss' is given twice"),
        (metric("loss=("), "Regex of metric 'loss' is no regular expression"),
        (metric(r"\mloss=(\d)"), "Regex of metric 'loss' is no regular expression"),
        (metric("(?<=a+)(b)"), "Regex of metric 'loss' is no regular expression"),
        (metric("a{99999999999999999999}(b)"), "Regex of metric 'loss' is no regular expression"),
        (metric("loss="), "Regex of metric 'loss' has no group"),
        (
            request(RemoteDebugConfig={"EnableRemoteDebug": True}),
            "RemoteDebugConfig asks for EnableRemoteDebug",
        ),
        (
            request(TensorBoardOutputConfig={"S3OutputPath": "https://b/tb"}),
            "S3OutputPath of TensorBoardOutputConfig is 'https://b/tb', which is no S3 URI",
        ),
        *(
            (
                request(TensorBoardOutputConfig={"S3OutputPath": "s3://b/tb", "LocalPath": path}),
                "LocalPath of TensorBoardOutputConfig",
            )
            for path in (
                *("/opt/ml", "/var/tb", "/opt/ml/output/../../x", "/opt/ml/."),
                *("/opt/ml/input/tb", "/opt/ml//input", "/opt/ml/./input/tb"),
            )
        ),
        *(
            (
                request(CheckpointConfig={"S3Uri": "s3://b/c", "LocalPath": path}),
                "LocalPath of CheckpointConfig",
            )
            for path in ("/opt/ml", "/opt/ml/model/", "/opt/ml//model", "/opt/ml/./code")
        ),
        (request(**spot(MaxRuntimeInSeconds=60)), WAIT),
        (request(**spot(MaxRuntimeInSeconds=60, MaxWaitTimeInSeconds=59)), WAIT),
        (request(**spot(MaxWaitTimeInSeconds=3600)), WAIT),
        (
            request(StoppingCondition={"MaxWaitTimeInSeconds": 3600}),
            "It is only supported when EnableManagedSpotTraining is set to true",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationException) as refused:
        check_training(changed)
    assert words in refused.value.message


@pytest.mark.parametrize(
    "changed",
    [
        request(),
        request(**spot(MaxRuntimeInSeconds=60, MaxWaitTimeInSeconds=60)),
        request(**spot(MaxWaitTimeInSeconds=86_400)),
        request(StoppingCondition={}),
        request(RemoteDebugConfig={"EnableRemoteDebug": False}),
        request(InfraCheckConfig={"EnableInfraCheck": True}),
        request(TensorBoardOutputConfig={"S3OutputPath": "s3://b/tb"}),
        request(
            TensorBoardOutputConfig={
                "S3OutputPath": "s3://b/tb",
                "LocalPath": "/opt/ml/output/tensorboard/",
            }
        ),
        request({"MetricDefinitions": [METRIC, {**METRIC, "Name": "other"}]}),
        metric(r"(?:a{3000}){3000}(\d)"),
        metric(r"(?:a{2}){99999999}(b)"),
    ],
)
def test_what_can_be_meant_is_not(changed: dict[str, Any]) -> None:
    check_training(changed)


def test_the_trials_of_a_tuning_job_are_checked_alike() -> None:
    given = request(HyperParameterTuningResourceConfig={**ONE, "InstanceCount": 0})
    definition = Definition("", Objective("loss", maximize=False), (), given)
    with pytest.raises(ValidationException, match=r"'resourceConfig\.instanceCount' failed"):
        check_training(training_request(definition, "t-001-a", {}))
