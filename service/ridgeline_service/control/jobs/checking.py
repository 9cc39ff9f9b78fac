"""What of a CreateTrainingJob request can be refused by reading it alone: what does not run here,
and what contradicts itself. Knows neither images nor this machine.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from ridgeline_service.errors import ValidationException

CHECKPOINTS = "/opt/ml/checkpoints"
TENSORBOARD = "/opt/ml/output/tensorboard"
DEFAULT_MAX_RUNTIME_S = 86_400

_OF_ITS_OWN = re.compile(r"/opt/ml/(?!(input|output|model|code)(/|$))[^/]+")
_WRITABLE = re.compile(r"/opt/ml/(?!input(/|$))[^/]+")
_OF_ONE_TYPE = ("InstanceType", "InstanceCount")
_COUNTED = {"InstanceCount": "instanceCount", "VolumeSizeInGB": "volumeSizeInGB"}


def check_training(request: Mapping[str, Any]) -> None:
    """Raises ValidationException, in SageMaker's words where we know them."""
    algorithm = request.get("AlgorithmSpecification") or {}
    if algorithm.get("TrainingImage") and algorithm.get("AlgorithmName"):
        raise ValidationException(
            "AlgorithmSpecification has a TrainingImage and an AlgorithmName; it may have one of "
            "them. Algorithms by name cannot run here: leave AlgorithmName out."
        )
    _check_inputs(request, algorithm)
    _check_metrics(algorithm)
    _check_places(request)
    check_remote_debugging(request)
    _check_resources(request.get("ResourceConfig") or {})
    _check_times(request)


def local_path(given: str) -> str:
    """A LocalPath without doubled or closing slashes and ``.``."""
    return posixpath.normpath(given)


def check_remote_debugging(request: Mapping[str, Any]) -> None:
    """Raises ValidationException where a shell in the running job is asked for."""
    if (request.get("RemoteDebugConfig") or {}).get("EnableRemoteDebug"):
        raise ValidationException(
            "RemoteDebugConfig asks for EnableRemoteDebug, and there is no AWS Systems Manager "
            "here to open a shell in the job.",
            hint="Leave it out; `ridgeline logs -f JOB` shows what the script prints.",
        )


def _check_resources(resources: Mapping[str, Any]) -> None:
    doubled = [name for name in _OF_ONE_TYPE if name in resources]
    if resources.get("InstanceGroups") and doubled:
        raise ValidationException(
            f"ResourceConfig has InstanceGroups and {' and '.join(doubled)}; it may have one or "
            "the other. Groups of unlike instances cannot run here: leave InstanceGroups out."
        )
    if not resources.get("InstanceType"):
        raise ValidationException(
            "ResourceConfig names no InstanceType; groups of unlike instances cannot run here."
        )
    for member, shown in _COUNTED.items():
        value = resources.get(member)
        if value is not None and value < 1:
            # botocore's models allow 0, for jobs that bring no instances of their own.
            raise ValidationException(
                f"1 validation error detected: Value '{value}' at 'resourceConfig.{shown}' failed "
                "to satisfy constraint: Member must have value greater than or equal to 1"
            )


def _check_times(request: Mapping[str, Any]) -> None:
    stopping = request.get("StoppingCondition") or {}
    wait = stopping.get("MaxWaitTimeInSeconds")
    if not request.get("EnableManagedSpotTraining", False):
        if wait is not None:
            raise ValidationException(
                "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining "
                "is set to true"
            )
    elif wait is None or wait < stopping.get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_S):
        raise ValidationException(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
            "MaxRuntimeInSeconds"
        )


def _check_inputs(request: Mapping[str, Any], algorithm: Mapping[str, Any]) -> None:
    default = algorithm.get("TrainingInputMode", "File")
    names = set()
    for channel in request.get("InputDataConfig") or ():
        name = channel["ChannelName"]
        if name in names:
            raise ValidationException(f"Channel {name!r} is given twice. Channel names are unique.")
        if name in (".", ".."):
            raise ValidationException(
                f"ChannelName {name!r} names no folder of its own below /opt/ml/input/data. Give "
                "it a name, such as train."
            )
        names.add(name)
        source = channel["DataSource"].get("S3DataSource")
        if source is None:
            raise ValidationException(
                f"Channel {name!r} has no S3DataSource, and channels come from S3 here. Put the "
                "data into a bucket."
            )
        if source["S3DataType"] not in ("S3Prefix", "ManifestFile"):
            raise ValidationException(
                f"Channel {name!r} is of S3DataType {source['S3DataType']}, which cannot be used "
                "here. Use S3Prefix or ManifestFile."
            )
        if channel.get("InputMode", default) == "Pipe":
            raise ValidationException(
                f"Channel {name!r} asks for Pipe mode, which does not run here. Use File or "
                "FastFile."
            )
        if not source["S3Uri"].startswith("s3://"):
            raise ValidationException(
                f"S3Uri of channel {name!r} is {source['S3Uri']!r}, which is no S3 URI."
            )


def _check_metrics(algorithm: Mapping[str, Any]) -> None:
    names = set()
    for definition in algorithm.get("MetricDefinitions") or ():
        name = definition["Name"]
        if name in names:
            raise ValidationException(
                f"MetricDefinitions: metric {name!r} is given twice. Names of metrics are unique."
            )
        names.add(name)
        try:
            groups = re.compile(definition["Regex"]).groups
        except (re.error, OverflowError, RecursionError) as error:
            raise ValidationException(
                f"Regex of metric {name!r} is no regular expression: {error}."
            ) from error
        if groups < 1:
            raise ValidationException(
                f"Regex of metric {name!r} has no group: put what is the value between parentheses."
            )


def _check_places(request: Mapping[str, Any]) -> None:
    output = request["OutputDataConfig"]["S3OutputPath"]
    if not output.startswith("s3://"):
        raise ValidationException(f"S3OutputPath is {output!r}, which is no S3 URI.")
    checkpoints = request.get("CheckpointConfig")
    if checkpoints is not None:
        path = checkpoints.get("LocalPath", CHECKPOINTS)
        if ".." in path or not _OF_ITS_OWN.match(local_path(path)):
            raise ValidationException(
                f"LocalPath of CheckpointConfig is {path!r}; checkpoints lie in a folder of their "
                f"own below /opt/ml here, such as {CHECKPOINTS}."
            )
    tensorboard = request.get("TensorBoardOutputConfig")
    if tensorboard is not None:
        _check_tensorboard(tensorboard)


def _check_tensorboard(config: Mapping[str, Any]) -> None:
    uri, path = config["S3OutputPath"], config.get("LocalPath", TENSORBOARD)
    if not uri.startswith("s3://"):
        raise ValidationException(
            f"S3OutputPath of TensorBoardOutputConfig is {uri!r}, which is no S3 URI."
        )
    if ".." in path or not _WRITABLE.match(local_path(path)):
        raise ValidationException(
            f"LocalPath of TensorBoardOutputConfig is {path!r}; what TensorBoard shows lies in a "
            f"folder below /opt/ml here, such as {TENSORBOARD}."
        )
