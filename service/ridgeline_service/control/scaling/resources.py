"""What is scaled: the instances of a variant, by its ResourceId, endpoint/NAME/variant/NAME."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from ridgeline_service.control.context import Context
from ridgeline_service.control.names import ENDPOINT
from ridgeline_service.errors import AwsError, ValidationException
from ridgeline_service.store import endpoints
from ridgeline_service.store.records import DeploymentRecord, EndpointRecord
from ridgeline_service.store.scaling import TargetRecord, get_target

NAMESPACE = "sagemaker"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"

_NAME = r"[a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62}"
_RESOURCE = re.compile(rf"endpoint/({_NAME})/variant/({_NAME})")


class ObjectNotFound(AwsError):
    """No such target, policy or scheduled action is registered."""

    code = "ObjectNotFoundException"
    http_status = 400


def check_dimension(request: Mapping[str, Any]) -> None:
    """Raises ValidationException for what is not the instances of a variant. Filters of listings
    may leave the dimension out."""
    namespace = request["ServiceNamespace"]
    if namespace != NAMESPACE:
        raise ValidationException(
            f"Service namespace {namespace!r} is not supported: Ridgeline scales {NAMESPACE!r}."
        )
    dimension = request.get("ScalableDimension", DIMENSION)
    if dimension != DIMENSION:
        raise ValidationException(
            f"Scalable dimension {dimension!r} is not supported: Ridgeline scales {DIMENSION!r}."
        )


def named_in(resource_id: str) -> tuple[str, str]:
    """Names of the endpoint and of the variant. Raises ValidationException."""
    found = _RESOURCE.fullmatch(resource_id)
    if found is None:
        raise ValidationException(
            f"Unsupported service namespace, resource type or scalable dimension: ResourceId is "
            f"{resource_id[:200]!r}.",
            hint="A variant's is endpoint/ENDPOINT_NAME/variant/VARIANT_NAME.",
        )
    return found.group(1), found.group(2)


def variant_of(
    context: Context, connection: Connection, resource_id: str
) -> tuple[EndpointRecord, DeploymentRecord]:
    """The endpoint and the deployment that has the variant. Raises ValidationException."""
    name, variant = named_in(resource_id)
    endpoint = endpoints.get_endpoint(connection, context.arns.of(ENDPOINT, name))
    if endpoint is None or endpoint.name != name:
        raise ValidationException(f'Could not find endpoint "{name}".')
    deployment_id = endpoint.active_deployment or endpoint.pending_deployment
    deployment = deployment_id and endpoints.get_deployment(connection, deployment_id)
    spec = deployment.variant(variant) if deployment else None
    if not deployment or spec is None:
        raise ValidationException(f'Could not find variant "{variant}" of endpoint "{name}".')
    if spec.serverless is not None:
        raise ValidationException(
            f'Variant "{variant}" of endpoint "{name}" is serverless and has no instances to scale.'
        )
    return endpoint, deployment


def registered(connection: Connection, resource_id: str) -> TargetRecord:
    """Its target, locked until the transaction ends. Raises ObjectNotFound."""
    target = get_target(connection, resource_id, for_update=True)
    if target is None:
        raise ObjectNotFound(
            f"No scalable target registered for namespace: {NAMESPACE}, resource id: "
            f"{resource_id[:200]}, scalable dimension: {DIMENSION}.",
            hint="RegisterScalableTarget comes first.",
        )
    return target
