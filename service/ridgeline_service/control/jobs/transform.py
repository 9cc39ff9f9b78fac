"""Transform jobs: how their requests are planned and how their rows are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.planning import Planner
from ridgeline_service.control.jobs.describing import shown_reason
from ridgeline_service.control.jobs.transform_planning import (
    DEFAULT_PAYLOAD_MB,
    concurrent,
    plan_transform,
)
from ridgeline_service.control.jobs.verbs import JobVerbs
from ridgeline_service.control.named import NamedVerbs
from ridgeline_service.control.names import MODEL, to_datetime
from ridgeline_service.store.job_records import JobKind, JobRecord, JobSpec
from ridgeline_service.store.resources import MODELS


class TransformJobs(JobVerbs):
    """The transform job verbs of the SageMaker API."""

    kind = JobKind.TRANSFORM
    default_order = "Descending"

    def __init__(self, context: Context, planner: Planner) -> None:
        super().__init__(context)
        self._planner = planner
        self._models = NamedVerbs(context, MODELS, kind=MODEL, words="model")

    def plan(self, request: Mapping[str, Any]) -> JobSpec:
        return plan_transform(self._planner, request, self._models.get(request["ModelName"]))

    def shown(self, job: JobRecord, now: int) -> dict[str, Any]:
        """DescribeTransformJob, with SageMaker's defaults for what the request left open."""
        request = job.request
        shown = {
            "MaxPayloadInMB": DEFAULT_PAYLOAD_MB,
            "MaxConcurrentTransforms": concurrent(request),
            "DataProcessing": {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"},
            **request,
            **self.summary(job),
        }
        shown["TransformInput"] = {
            "CompressionType": "None",
            "SplitType": "None",
            **request["TransformInput"],
        }
        shown["TransformOutput"] = {
            "AssembleWith": "None",
            "KmsKeyId": "",
            **request["TransformOutput"],
        }
        del shown["LastModifiedTime"]  # a member of the list alone
        if job.started_at is not None:
            shown["TransformStartTime"] = to_datetime(job.started_at)
        return shown

    def summary(self, job: JobRecord) -> dict[str, Any]:
        found = {
            "TransformJobName": job.name,
            "TransformJobArn": job.arn,
            "TransformJobStatus": job.status.value,
            "CreationTime": to_datetime(job.created_at),
            "LastModifiedTime": to_datetime(job.modified_at),
        }
        if job.ended_at is not None:
            found["TransformEndTime"] = to_datetime(job.ended_at)
        if reason := shown_reason(job):
            found["FailureReason"] = reason
        return found
