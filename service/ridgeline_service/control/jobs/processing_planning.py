"""From a CreateProcessingJob request to what the job will be. Reads no S3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ridgeline_service.control.jobs.checking import DEFAULT_MAX_RUNTIME_S, local_path
from ridgeline_service.control.jobs.planning import JobPlanner
from ridgeline_service.errors import ValidationException
from ridgeline_service.placement.machine import GIB
from ridgeline_service.store.job_records import JobSpec

LOCAL = "/opt/ml/processing"


def plan_processing(planner: JobPlanner, request: Mapping[str, Any]) -> JobSpec:
    """Raises ValidationException or ResourceLimitExceeded for what can never run here."""
    application = request["AppSpecification"]
    runtime = planner.runtime(application["ImageUri"])
    if not application.get("ContainerEntrypoint"):
        raise ValidationException(
            "AppSpecification names no ContainerEntrypoint, and the images here have no program of "
            "their own that could process. Give the command to run, like "
            f'["python3", "{LOCAL}/input/code/script.py"].'
        )
    _check_names("ProcessingInputs", request.get("ProcessingInputs") or (), "InputName")
    for item in request.get("ProcessingInputs") or ():
        _check_input(item)
    outputs = (request.get("ProcessingOutputConfig") or {}).get("Outputs") or ()
    _check_names("Outputs", outputs, "OutputName")
    for item in outputs:
        _check_output(item)
    cluster = request["ProcessingResources"]["ClusterConfig"]
    if not cluster.get("InstanceType"):
        raise ValidationException(
            "ClusterConfig names no InstanceType; lists of InstancePreferences cannot run here."
        )
    fit = planner.fit(request, cluster["InstanceType"], int(cluster.get("InstanceCount", 1)))
    stopping = request.get("StoppingCondition") or {}
    return JobSpec(
        runtime=runtime.name,
        instance_type=fit.profile.name,
        instance_count=fit.count,
        memory_bytes=fit.memory_bytes,
        memory_limit_bytes=fit.limit_bytes,
        volume_bytes=int(cluster["VolumeSizeInGB"]) * GIB,
        max_runtime_s=float(stopping.get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_S)),
        warning=fit.warning,
    )


def _check_names(what: str, items: Any, member: str) -> None:
    names = [item[member] for item in items]
    for name in names:
        if names.count(name) > 1:
            raise ValidationException(f"{what}: {member} {name!r} is given twice.")


def _check_input(item: Mapping[str, Any]) -> None:
    name, source = item["InputName"], item.get("S3Input")
    if source is None:
        raise ValidationException(
            f"Input {name!r} has no S3Input, and inputs come from S3 here. Put the data into a "
            "bucket."
        )
    if source.get("S3InputMode", "File") != "File":
        raise ValidationException(
            f"Input {name!r} asks for Pipe mode, which does not run here. Use File."
        )
    if source.get("S3CompressionType", "None") != "None":
        raise ValidationException(
            f"Input {name!r}: S3CompressionType Gzip belongs to Pipe mode, which does not run "
            "here. Use None; the script can unpack the files."
        )
    _check_place(f"Input {name!r}", source)


def _check_output(item: Mapping[str, Any]) -> None:
    name, target = item["OutputName"], item.get("S3Output")
    if target is None:
        raise ValidationException(
            f"Output {name!r} has no S3Output, and outputs go to S3 here. Name a place in a bucket."
        )
    _check_place(f"Output {name!r}", target)


def _check_place(who: str, place: Mapping[str, Any]) -> None:
    if not place["S3Uri"].startswith("s3://"):
        raise ValidationException(f"S3Uri of {who} is {place['S3Uri']!r}, which is no S3 URI.")
    given = place.get("LocalPath", "")
    if not f"{local_path(given)}/".startswith(f"{LOCAL}/"):
        raise ValidationException(
            f"LocalPath of {who} is {given!r}; it is a folder below {LOCAL}, such as {LOCAL}/data."
        )
