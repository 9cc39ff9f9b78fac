"""What DescribeEndpoint and ListEndpoints answer, made from rows. Reads and writes no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ridgeline_service.control.endpoints.rollouts import Rollout, Shares
from ridgeline_service.control.names import to_datetime
from ridgeline_service.store.records import (
    DeploymentRecord,
    EndpointRecord,
    ReplicaRecord,
    VariantSpec,
)
from ridgeline_service.store.states import EndpointStatus, ReplicaStatus

_COPIED = ("AsyncInferenceConfig", "MetricsConfig")


def describe(
    endpoint: EndpointRecord,
    active: DeploymentRecord | None,
    pending: DeploymentRecord | None,
    replicas: Sequence[ReplicaRecord],
) -> dict[str, Any]:
    """The DescribeEndpoint response. Before the first deployment serves, it shows that one."""
    shown = active or pending
    shares = _shares(endpoint, pending)
    response: dict[str, Any] = {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "EndpointStatus": endpoint.status.value,
        "CreationTime": to_datetime(endpoint.created_at),
        "LastModifiedTime": to_datetime(endpoint.modified_at),
    }
    if endpoint.failure_reason:
        response["FailureReason"] = endpoint.failure_reason
    if endpoint.deployment_config is not None:
        response["LastDeploymentConfig"] = endpoint.deployment_config
    if shown is None:
        return response
    response["EndpointConfigName"] = shown.config_name
    response["ProductionVariants"] = [
        _variant(variant, shown, replicas, endpoint, shares) for variant in shown.variants
    ]
    for name in _COPIED:
        if name in shown.config:
            response[name] = shown.config[name]
    if "DataCaptureConfig" in shown.config:
        response["DataCaptureConfig"] = _capture(
            shown.config["DataCaptureConfig"], serves=active is not None
        )
    if pending is not None and active is not None:
        response["PendingDeploymentSummary"] = {
            "EndpointConfigName": pending.config_name,
            "StartTime": to_datetime(pending.created_at),
            "ProductionVariants": [
                _pending(item, pending, replicas, endpoint, shares) for item in pending.variants
            ],
        }
    return response


def summary(endpoint: EndpointRecord) -> dict[str, Any]:
    return {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "EndpointStatus": endpoint.status.value,
        "CreationTime": to_datetime(endpoint.created_at),
        "LastModifiedTime": to_datetime(endpoint.modified_at),
    }


def _variant(
    variant: VariantSpec,
    deployment: DeploymentRecord,
    replicas: Sequence[ReplicaRecord],
    endpoint: EndpointRecord,
    shares: Shares | None,
) -> dict[str, Any]:
    shown = _common(variant, deployment, replicas)
    if shares is not None:
        shown["CurrentWeight"] = _part(variant.weight, 1.0 - shares.of(variant.name))
    if endpoint.status is EndpointStatus.CREATING:
        shown["VariantStatus"] = [{"Status": "Creating", **_message(variant, replicas)}]
    elif endpoint.status is EndpointStatus.UPDATING:
        shown["VariantStatus"] = [{"Status": "Updating", **_message(variant, replicas)}]
    return shown


def _pending(
    variant: VariantSpec,
    deployment: DeploymentRecord,
    replicas: Sequence[ReplicaRecord],
    endpoint: EndpointRecord,
    shares: Shares | None,
) -> dict[str, Any]:
    shown = _common(variant, deployment, replicas)
    if variant.serverless is None:
        shown["InstanceType"] = variant.instance_type
    if shares is None:
        shown["CurrentWeight"] = 0.0
        shown["VariantStatus"] = [{"Status": "Creating", **_message(variant, replicas)}]
        return shown
    share = shares.of(variant.name)
    shown["CurrentWeight"] = _part(variant.weight, share)
    shown["VariantStatus"] = [
        {
            "Status": status,
            "StatusMessage": f"{share:.0%} of the variant's traffic goes to the new fleet.",
            "StartTime": to_datetime(endpoint.traffic_at),
        }
        for status in (("Baking",) if share == 1.0 else ("ActivatingTraffic", "Baking"))
    ]
    return shown


def _part(weight: float, share: float) -> float:
    """Without the traces that binary fractions leave in the last places."""
    return round(weight * share, 9)


def _shares(endpoint: EndpointRecord, pending: DeploymentRecord | None) -> Shares | None:
    """What of the traffic an update has moved; None before it begins to."""
    if pending is None or not endpoint.traffic_step:
        return None
    rollout = Rollout.of(endpoint.deployment_config)
    return rollout.shares(pending.variants, endpoint.traffic_step)


def _common(
    variant: VariantSpec, deployment: DeploymentRecord, replicas: Sequence[ReplicaRecord]
) -> dict[str, Any]:
    serving = sum(
        replica.deployment_id == deployment.id and replica.variant == variant.name
        for replica in replicas
        if replica.serves
    )
    shown: dict[str, Any] = {
        "VariantName": variant.name,
        "DeployedImages": [
            {
                "SpecifiedImage": variant.container.image,
                "ResolvedImage": variant.container.image,
                "ResolutionTime": to_datetime(deployment.created_at),
            }
        ],
        "CurrentWeight": variant.weight,
        "DesiredWeight": variant.weight,
    }
    if variant.serverless is None:
        shown["CurrentInstanceCount"] = serving
        shown["DesiredInstanceCount"] = variant.count
    else:
        shown["CurrentServerlessConfig"] = variant.serverless
        shown["DesiredServerlessConfig"] = variant.serverless
    return shown


def _message(variant: VariantSpec, replicas: Sequence[ReplicaRecord]) -> dict[str, str]:
    """What the newest replica that is not ready yet says: a wait, a stage."""
    for replica in reversed(replicas):
        if replica.variant == variant.name and not replica.status.ended:
            if replica.status is ReplicaStatus.READY:
                continue
            return {"StatusMessage": (replica.message or f"Replica is {replica.status}.")[:1024]}
    return {}


def _capture(config: Mapping[str, Any], *, serves: bool) -> dict[str, Any]:
    enabled = bool(config.get("EnableCapture", True))
    return {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled and serves else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }
