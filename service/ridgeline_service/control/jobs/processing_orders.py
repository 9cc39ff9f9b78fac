"""From a processing job's row to what its runners' orders have beyond others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ridgeline_service.control.jobs.checking import local_path
from ridgeline_service.store.job_records import JobRecord
from ridgeline_service.training.order import Channel, Order, OutputFolder, Processing


def processing_order(job: JobRecord, order: Order) -> Order:
    request = job.request
    application = request["AppSpecification"]
    outputs = (request.get("ProcessingOutputConfig") or {}).get("Outputs") or ()
    stopping = {"MaxRuntimeInSeconds": int(job.spec.max_runtime_s)}
    return replace(
        order,
        entrypoint=tuple(application["ContainerEntrypoint"]),
        arguments=tuple(application.get("ContainerArguments") or ()),
        channels=tuple(_input(item) for item in request.get("ProcessingInputs") or ()),
        processing=Processing(
            outputs=tuple(_output(item) for item in outputs),
            config={"ProcessingJobArn": job.arn, "StoppingCondition": stopping, **request},
        ),
    )


def _input(item: Mapping[str, Any]) -> Channel:
    source = item["S3Input"]
    return Channel(
        name=item["InputName"],
        uri=source["S3Uri"],
        data_type=source["S3DataType"],
        distribution=source.get("S3DataDistributionType", "FullyReplicated"),
        path=local_path(source["LocalPath"]),
    )


def _output(item: Mapping[str, Any]) -> OutputFolder:
    target = item["S3Output"]
    return OutputFolder(
        name=item["OutputName"],
        path=local_path(target["LocalPath"]),
        uri=target["S3Uri"],
        continuous=target["S3UploadMode"] == "Continuous",
    )
