"""A scalable target beside its variant, as both were read at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from ridgeline_service.control.endpoints.capacities import least_instances
from ridgeline_service.store import endpoints
from ridgeline_service.store.records import EndpointRecord, VariantSpec
from ridgeline_service.store.scaling import TargetRecord
from ridgeline_service.store.states import EndpointStatus


@dataclass(frozen=True)
class Seen:
    """``low`` and ``high`` are the bounds that hold: the target's, and what its endpoint allows."""

    target: TargetRecord
    endpoint: EndpointRecord
    variant: VariantSpec
    low: int
    high: int

    @property
    def count(self) -> int:
        return self.variant.count


def see(connection: Connection, target: TargetRecord | None) -> Seen | None:
    """None until the endpoint is at rest, and while it has no such variant with instances."""
    endpoint = target and endpoints.get_endpoint(connection, target.endpoint_arn)
    if not target or not endpoint or endpoint.status is not EndpointStatus.IN_SERVICE:
        return None
    active = endpoint.active_deployment and endpoints.get_deployment(
        connection, endpoint.active_deployment
    )
    variant = active.variant(target.variant) if active else None
    if not active or variant is None or variant.serverless is not None:
        return None
    low = max(least_instances(active), target.min_capacity)
    return Seen(target, endpoint, variant, low, max(low, target.max_capacity))
