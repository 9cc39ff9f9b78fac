"""Processing jobs: how their requests are planned and how their rows are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ridgeline_service.control.context import Context
from ridgeline_service.control.jobs.describing import shown_reason
from ridgeline_service.control.jobs.planning import JobPlanner
from ridgeline_service.control.jobs.processing_planning import plan_processing
from ridgeline_service.control.jobs.verbs import JobVerbs
from ridgeline_service.control.names import to_datetime
from ridgeline_service.store.job_records import JobKind, JobRecord, JobSpec


class ProcessingJobs(JobVerbs):
    """The processing job verbs of the SageMaker API."""

    kind = JobKind.PROCESSING

    def __init__(self, context: Context, planner: JobPlanner) -> None:
        super().__init__(context)
        self._planner = planner

    def plan(self, request: Mapping[str, Any]) -> JobSpec:
        return plan_processing(self._planner, request)

    def shown(self, job: JobRecord, now: int) -> dict[str, Any]:
        """DescribeProcessingJob. AWS's SDK reads ProcessingInputs without asking whether it is
        there."""
        shown = {
            "ProcessingInputs": [],
            **job.request,
            **self.summary(job),
            "StoppingCondition": {"MaxRuntimeInSeconds": int(job.spec.max_runtime_s)},
        }
        if job.started_at is not None:
            shown["ProcessingStartTime"] = to_datetime(job.started_at)
        return shown

    def summary(self, job: JobRecord) -> dict[str, Any]:
        found = {
            "ProcessingJobName": job.name,
            "ProcessingJobArn": job.arn,
            "ProcessingJobStatus": job.status.value,
            "CreationTime": to_datetime(job.created_at),
            "LastModifiedTime": to_datetime(job.modified_at),
        }
        if job.ended_at is not None:
            found["ProcessingEndTime"] = to_datetime(job.ended_at)
        optional = {"FailureReason": shown_reason(job), "ExitMessage": job.exit_message}
        return found | {name: value for name, value in optional.items() if value}
