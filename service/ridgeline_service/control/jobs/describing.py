"""What DescribeTrainingJob and ListTrainingJobs answer, made from rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ridgeline_service.control.names import to_datetime
from ridgeline_service.store.job_records import JobRecord, JobStatus, Moment


def describe(job: JobRecord, now: int) -> dict[str, Any]:
    request = job.request
    response: dict[str, Any] = {
        "EnableNetworkIsolation": False,
        "EnableInterContainerTrafficEncryption": False,
        "EnableManagedSpotTraining": False,
        **request,
        "StoppingCondition": {
            "MaxRuntimeInSeconds": int(job.spec.max_runtime_s),
            **(request.get("StoppingCondition") or {}),
        },
        # AWS's SDK reads this member without asking whether it is there.
        "OutputDataConfig": {"KmsKeyId": "", **request["OutputDataConfig"]},
        "TrainingJobArn": job.arn,
        "TrainingJobStatus": job.status.value,
        "SecondaryStatus": secondary_status(job),
        "SecondaryStatusTransitions": transitions(job.moments, job.ended_at),
        "CreationTime": to_datetime(job.created_at),
        "LastModifiedTime": to_datetime(job.modified_at),
        "ModelArtifacts": {"S3ModelArtifacts": job.artifacts},
        "ProfilingStatus": "Disabled",
    }
    if job.failure_reason:
        response["FailureReason"] = job.failure_reason
    if job.started_at is not None:
        response["TrainingStartTime"] = to_datetime(job.started_at)
        response |= _times(job, job.started_at, now)
    if job.ended_at is not None:
        response["TrainingEndTime"] = to_datetime(job.ended_at)
    if job.metrics:
        response["FinalMetricDataList"] = [
            {
                "MetricName": metric.name,
                "Value": metric.value,
                "Timestamp": to_datetime(metric.at),
            }
            for metric in job.metrics
        ]
    return response


def summary(job: JobRecord) -> dict[str, Any]:
    found = {
        "TrainingJobName": job.name,
        "TrainingJobArn": job.arn,
        "CreationTime": to_datetime(job.created_at),
        "LastModifiedTime": to_datetime(job.modified_at),
        "TrainingJobStatus": job.status.value,
        "SecondaryStatus": secondary_status(job),
    }
    if job.ended_at is not None:
        found["TrainingEndTime"] = to_datetime(job.ended_at)
    return found


def secondary_status(job: JobRecord) -> str:
    """The stop shows at once, before the runner has heard of it."""
    return "Stopping" if job.status is JobStatus.STOPPING else job.secondary


def shown_reason(job: JobRecord) -> str:
    """The FailureReason of a job of a kind that has no secondary statuses: why it failed, or what
    it waits for."""
    if job.failure_reason or job.secondary != "Pending":
        return job.failure_reason
    return job.moments[-1].message


def _times(job: JobRecord, started_at: int, now: int) -> dict[str, int]:
    """Wall-clock seconds, of one instance. Without spot training the whole interval is billed; with
    it, the attempts without the time between them. AWS's SDK divides one by the other."""
    training = _seconds((job.ended_at or now) - started_at)
    if job.ended_at is None:
        return {"TrainingTimeInSeconds": training}
    spot = job.request.get("EnableManagedSpotTraining", False)
    billed = min(training, _seconds(job.billable_us)) if spot else training
    return {"TrainingTimeInSeconds": training, "BillableTimeInSeconds": billed}


def _seconds(microseconds: int) -> int:
    """At least 1, which is SageMaker's minimum."""
    return max(1, round(microseconds / 1e6))


def transitions(moments: Sequence[Moment], ended_at: int | None) -> list[dict[str, Any]]:
    """Each ends where the next begins; the last one of a job that ended, with the job."""
    ends = [moment.at for moment in moments[1:]] + [ended_at]
    found = []
    for moment, end in zip(moments, ends, strict=True):
        shown = {
            "Status": moment.status,
            "StartTime": to_datetime(moment.at),
            "StatusMessage": moment.message,
        }
        if end is not None:
            shown["EndTime"] = to_datetime(end)
        found.append(shown)
    return found
