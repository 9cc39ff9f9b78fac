"""From a CreateTransformJob request to what the job will be: its model resolved as an endpoint's,
the impossible refused. Reads no S3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ridgeline_service.control.endpoints.planning import Planner
from ridgeline_service.control.models import containers_of
from ridgeline_service.errors import ValidationException
from ridgeline_service.store.job_records import JobSpec
from ridgeline_service.store.records import StoredRequest, VariantSpec
from ridgeline_service.training.transform.rows import (
    BadRows,
    Filters,
    RowFilter,
    format_of,
    path_of,
)

DEFAULT_PAYLOAD_MB = 6
DEFAULT_CONCURRENT = 1
DEFAULT_TIMEOUT_S = 600
DEFAULT_RETRIES = 3
MOST_MB_AT_ONCE = 100

_MAX_RUNTIME_S = 28 * 86_400.0
_RUNS = ("S3Prefix", "ManifestFile")


def plan_transform(planner: Planner, request: Mapping[str, Any], model: StoredRequest) -> JobSpec:
    """Raises ValidationException or ResourceLimitExceeded for what can never run here."""
    _check_places(request)
    _check_sizes(request)
    _check_filters(request)
    variant = _variant(planner, request, model)
    return JobSpec(
        runtime=variant.container.runtime,
        instance_type=variant.instance_type,
        instance_count=variant.count,
        memory_bytes=variant.memory_bytes,
        memory_limit_bytes=variant.memory_limit_bytes,
        volume_bytes=0,
        max_runtime_s=_MAX_RUNTIME_S,
        warning=variant.warning,
        model=variant,
    )


def payload_mb(request: Mapping[str, Any]) -> int:
    """MaxPayloadInMB; 0 is no limit."""
    return int(request.get("MaxPayloadInMB", DEFAULT_PAYLOAD_MB))


def concurrent(request: Mapping[str, Any]) -> int:
    """MaxConcurrentTransforms, whose 0 leaves it to the service."""
    return int(request.get("MaxConcurrentTransforms") or DEFAULT_CONCURRENT)


def filters_of(request: Mapping[str, Any]) -> Filters:
    given = request.get("DataProcessing") or {}
    return Filters(
        given.get("InputFilter") or "$",
        given.get("OutputFilter") or "$",
        given.get("JoinSource", "None") == "Input",
    )


def _variant(planner: Planner, request: Mapping[str, Any], model: StoredRequest) -> VariantSpec:
    """As if an endpoint was made of the model with the job's own Environment on top."""
    resources = request["TransformResources"]
    config = {
        "ProductionVariants": [
            {
                "VariantName": "Transform",
                "ModelName": model.name,
                "InstanceType": resources["InstanceType"],
                "InitialInstanceCount": resources["InstanceCount"],
            }
        ]
    }
    plan = planner.plan(
        StoredRequest(model.arn, model.name, model.created_at, config),
        {model.name: _with_environment(model, request)},
    )
    [variant] = plan.variants
    return variant


def _with_environment(model: StoredRequest, request: Mapping[str, Any]) -> StoredRequest:
    """The model as this job runs it, which also tells its container that it is a batch."""
    single = request.get("BatchStrategy") == "SingleRecord"
    batch = {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD" if single else "MULTI_RECORD",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(concurrent(request)),
    }
    given = request.get("Environment") or {}
    containers = [
        {**each, "Environment": {**batch, **(each.get("Environment") or {}), **given}}
        for each in containers_of(model.request)
    ]
    kept = {name: value for name, value in model.request.items() if name != "PrimaryContainer"}
    return replace(model, request={**kept, "Containers": containers})


def _check_places(request: Mapping[str, Any]) -> None:
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    if source["S3DataType"] not in _RUNS:
        raise ValidationException(
            f"TransformInput is of S3DataType {source['S3DataType']}, which cannot be used here. "
            "Use S3Prefix or ManifestFile."
        )
    places = {
        "S3Uri of TransformInput": source["S3Uri"],
        "S3OutputPath": request["TransformOutput"]["S3OutputPath"],
    }
    for what, uri in places.items():
        if not uri.startswith("s3://"):
            raise ValidationException(f"{what} is {uri!r}, which is no S3 URI.")
    if request.get("DataCaptureConfig"):
        raise ValidationException(
            "DataCaptureConfig is given, and what transform jobs see is not captured here. Leave "
            "it out; the outputs can be joined with their inputs by DataProcessing."
        )


def _check_sizes(request: Mapping[str, Any]) -> None:
    size, count = payload_mb(request), concurrent(request)
    if size * count > MOST_MB_AT_ONCE:
        raise ValidationException(
            f"MaxConcurrentTransforms * MaxPayloadInMB is {count} * {size} MB and must not exceed "
            f"{MOST_MB_AT_ONCE} MB."
        )


def _check_filters(request: Mapping[str, Any]) -> None:
    filters = filters_of(request)
    try:
        for path in (filters.input, filters.output):
            path_of(path)
        if filters.idle:
            return
        content_type = request["TransformInput"].get("ContentType", "")
        RowFilter(filters, content_type, one_a_line=True)
    except BadRows as error:
        raise ValidationException(f"DataProcessing: {error}.") from error
    accept = request["TransformOutput"].get("Accept") or content_type
    if filters.join and (format_of(accept) == "csv") != (format_of(content_type) == "csv"):
        raise ValidationException(
            f"DataProcessing joins input and output, and ContentType {content_type} and Accept "
            f"{accept} are of unlike formats. Give them the same one."
        )
