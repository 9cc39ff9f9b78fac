"""Weights and instance counts of the deployment that serves, changed in place: by
UpdateEndpointWeightsAndCapacities, and by scaling policies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.planning import Planner
from ridgeline_service.control.named import could_not_find
from ridgeline_service.errors import ValidationException
from ridgeline_service.store import endpoints as rows
from ridgeline_service.store import replicas
from ridgeline_service.store.records import DeploymentRecord, EndpointRecord, VariantSpec
from ridgeline_service.store.states import EndpointStatus, Reason

# What one variant may be given.
_CHANGEABLE = frozenset({"DesiredWeight", "DesiredInstanceCount", "ServerlessUpdateConfig"})


def change_in_place(
    context: Context,
    planner: Planner,
    connection: Connection,
    endpoint: EndpointRecord,
    wanted: Sequence[Mapping[str, Any]],
) -> None:
    """Write what is wanted, in the caller's transaction, which has locked the endpoint's row: the
    caller says ``context.changed()`` behind it. ``wanted`` are DesiredWeightsAndCapacities.

    Raises ValidationException and ResourceLimitExceeded.
    """
    if endpoint.status is EndpointStatus.FAILED:
        raise ValidationException(
            f'Cannot change weights or capacities of endpoint "{endpoint.arn}": its status '
            f"is {endpoint.status}.",
            hint="Bring it back with UpdateEndpoint, or delete it.",
        )
    if endpoint.status is not EndpointStatus.IN_SERVICE and not _waits(connection, endpoint):
        raise in_progress(endpoint)
    active = endpoint.active_deployment and rows.get_deployment(
        connection, endpoint.active_deployment
    )
    if not active:
        raise could_not_find("endpoint", endpoint.arn)
    changed = _reweighted(active, wanted)
    planner.check_total(changed)
    rows.change_variants(connection, active.id, changed)
    rows.change_endpoint(
        connection,
        endpoint.arn,
        status=EndpointStatus.UPDATING,
        reason=Reason.REQUESTED,
        failure_reason="",
        modified_at=context.now(),
    )
    context.event(connection, endpoint.arn, EndpointStatus.UPDATING, Reason.REQUESTED)


def _waits(connection: Connection, endpoint: EndpointRecord) -> bool:
    """Whether an earlier change of capacities waits for room: another one goes in its place."""
    if endpoint.status is not EndpointStatus.UPDATING or endpoint.pending_deployment is not None:
        return False
    mine = replicas.replicas_of(connection, endpoint.arn)
    return any(replica.reason.waits_for_room for replica in mine)


def in_progress(endpoint: EndpointRecord) -> ValidationException:
    return ValidationException(
        f'Cannot update in-progress endpoint "{endpoint.arn}".',
        hint=f"Its status is {endpoint.status}.",
    )


def least_instances(deployment: DeploymentRecord) -> int:
    """How few instances a variant may have: asynchronous requests wait for the next one, others
    need one to answer them."""
    return 0 if "AsyncInferenceConfig" in deployment.config else 1


def _reweighted(
    active: DeploymentRecord, wanted: Sequence[Mapping[str, Any]]
) -> tuple[VariantSpec, ...]:
    variants = {variant.name: variant for variant in active.variants}
    times = Counter(item["VariantName"] for item in wanted)
    for item in wanted:
        name = item["VariantName"]
        if name not in variants:
            raise ValidationException(
                f'Variant "{name}" does not exist.',
                hint=f"The endpoint's variants: {', '.join(variants)}.",
            )
        if times[name] > 1:
            raise ValidationException(
                f'Variant "{name}" is given {times[name]} times in DesiredWeightsAndCapacities.',
                hint="Give each variant once.",
            )
        if not _CHANGEABLE & item.keys():
            raise ValidationException(
                f'Variant "{name}" has neither DesiredWeight nor DesiredInstanceCount.',
                hint="Give at least one of them.",
            )
        variants[name] = _changed(variants[name], item, least_instances(active))
    if all(variant.weight == 0 for variant in variants.values()):
        raise ValidationException("All weights would be 0: at least one variant must take traffic.")
    return tuple(variants.values())


def _changed(variant: VariantSpec, item: Mapping[str, Any], least: int) -> VariantSpec:
    if "DesiredWeight" in item:
        variant = replace(variant, weight=float(item["DesiredWeight"]))
    if "DesiredInstanceCount" in item:
        if variant.serverless is not None:
            raise ValidationException(
                f'Variant "{variant.name}" is serverless and has no instances to count.',
                hint="MaxConcurrency of ServerlessUpdateConfig is what bounds it.",
            )
        if item["DesiredInstanceCount"] < least:
            raise ValidationException(
                f'DesiredInstanceCount of variant "{variant.name}" must be {least} or more.',
                hint="Set its weight to 0 to send it no traffic.",
            )
        variant = replace(variant, count=int(item["DesiredInstanceCount"]))
    if "ServerlessUpdateConfig" in item and variant.serverless is not None:
        merged = {**variant.serverless, **item["ServerlessUpdateConfig"]}
        variant = replace(variant, serverless=merged)
    return variant
