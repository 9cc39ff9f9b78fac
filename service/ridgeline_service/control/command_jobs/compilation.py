"""Compilation jobs: how their requests are checked and how their rows are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ridgeline.errors import RidgelineError
from ridgeline_backends.neuron.jobs.options import Order, read_order
from ridgeline_service.control.command_jobs.locations import check_folder, check_object
from ridgeline_service.control.command_jobs.verbs import CommandJobVerbs
from ridgeline_service.control.names import to_datetime
from ridgeline_service.errors import ValidationException
from ridgeline_service.store.command_jobs import CommandJob, CommandKind

_ARTIFACTS = "S3ModelArtifacts"
_REASON = 1024
"""Characters of a reason, as SageMaker's clients know it."""


class CompilationJobs(CommandJobVerbs):
    """The compilation job verbs of the SageMaker API, for simulated Neuron targets."""

    kind = CommandKind.COMPILATION
    waiting = "STARTING"
    member = "CompilationJobName"
    arn = "CompilationJobArn"
    entries = "CompilationJobSummaries"

    def check(self, request: Mapping[str, Any]) -> None:
        source, target = request.get("InputConfig"), request["OutputConfig"]
        if "ModelPackageVersionArn" in request:
            raise ValidationException(
                "ModelPackageVersionArn cannot be compiled here.", hint="Give an InputConfig."
            )
        if source is None:
            raise ValidationException(
                "A compilation job needs an InputConfig.",
                hint="Give its S3Uri, which is that of a .tar.gz archive, and its Framework.",
            )
        if source["Framework"] != "PYTORCH":
            raise ValidationException(
                f"InputConfig.Framework {source['Framework']} is not compiled here.",
                hint="PYTORCH models are, for ml_inf2, ml_trn1 and ml_trn2.",
            )
        check_object("InputConfig.S3Uri", source["S3Uri"])
        check_folder("OutputConfig.S3OutputLocation", target["S3OutputLocation"])
        if "TargetPlatform" in target:
            raise ValidationException(
                "OutputConfig.TargetPlatform has no compiler here.",
                hint="Give a TargetDevice: ml_inf2, ml_trn1 or ml_trn2.",
            )
        order_of(request)

    def shown(self, job: CommandJob) -> dict[str, Any]:
        found = {
            **job.request,
            "CompilationJobName": job.name,
            "CompilationJobArn": job.arn,
            "CompilationJobStatus": job.status,
            "CreationTime": to_datetime(job.created_at),
            "LastModifiedTime": to_datetime(job.modified_at),
            "FailureReason": job.failure_reason[:_REASON],
            "ModelArtifacts": {_ARTIFACTS: job.result.get("artifacts", "")},
            **_times(job),
        }
        if job.result:
            found["ModelDigests"] = {"ArtifactDigest": job.result["digest"]}
            found["DerivedInformation"] = {"DerivedDataInputConfig": job.result["inputs"]}
            if job.result["image"]:
                found["InferenceImage"] = job.result["image"]
        return found

    def summary(self, job: CommandJob) -> dict[str, Any]:
        return {
            "CompilationJobName": job.name,
            "CompilationJobArn": job.arn,
            "CompilationJobStatus": job.status,
            "CompilationTargetDevice": job.request["OutputConfig"]["TargetDevice"],
            "CreationTime": to_datetime(job.created_at),
            "LastModifiedTime": to_datetime(job.modified_at),
            **_times(job),
        }


def order_of(request: Mapping[str, Any]) -> Order:
    """What is asked of the compiler. Raises ValidationException."""
    target = request["OutputConfig"]
    try:
        return read_order(
            target.get("TargetDevice", ""),
            request["InputConfig"].get("DataInputConfig", ""),
            target.get("CompilerOptions", ""),
        )
    except RidgelineError as error:
        raise ValidationException(error.message, hint=error.hint) from error


def _times(job: CommandJob) -> dict[str, Any]:
    times = {"CompilationStartTime": job.started_at, "CompilationEndTime": job.ended_at}
    return {name: to_datetime(at) for name, at in times.items() if at is not None}
