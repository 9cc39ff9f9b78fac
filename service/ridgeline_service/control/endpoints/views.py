"""What is known of an endpoint when it is decided what it needs, and what was decided.

Values alone: the rules are in ``decisions.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ridgeline_service.store.alarms import AlarmRecord
from ridgeline_service.store.records import (
    DeploymentRecord,
    EndpointRecord,
    ReplicaRecord,
    VariantSpec,
)
from ridgeline_service.store.states import Reason


@dataclass(frozen=True)
class View:
    """The rows of one endpoint: its deployments, replicas in the order they were made, and those
    of its rollback alarms that are in ALARM."""

    endpoint: EndpointRecord
    deployments: tuple[DeploymentRecord, ...]
    replicas: tuple[ReplicaRecord, ...]
    ringing: tuple[AlarmRecord, ...] = ()

    def deployment(self, deployment_id: str | None) -> DeploymentRecord | None:
        return next((item for item in self.deployments if item.id == deployment_id), None)

    def fleets(self, deployment: DeploymentRecord) -> list[list[ReplicaRecord]]:
        """The replicas of each variant, in the order of the variants."""
        return [self.fleet(deployment, variant) for variant in deployment.variants]

    def fleet(self, deployment: DeploymentRecord, variant: VariantSpec) -> list[ReplicaRecord]:
        return [
            item
            for item in self.replicas
            if item.deployment_id == deployment.id and item.variant == variant.name
        ]

    def complete(self, deployment: DeploymentRecord) -> bool:
        """Every variant has exactly as many serving replicas as it should, and none in motion."""
        return all(
            len(serving_of(mine)) == variant.count
            for variant, mine in zip(deployment.variants, self.fleets(deployment), strict=True)
        )

    @property
    def active(self) -> DeploymentRecord | None:
        return self.deployment(self.endpoint.active_deployment)

    @property
    def pending(self) -> DeploymentRecord | None:
        return self.deployment(self.endpoint.pending_deployment)


@dataclass(frozen=True)
class Start:
    """A replica to be made for a variant of a deployment."""

    deployment: DeploymentRecord
    variant: VariantSpec


@dataclass
class Decision:
    """What to do, all in one transaction. ``retry_at`` (microseconds) asks to be asked again."""

    endpoint: EndpointRecord
    starts: list[Start] = field(default_factory=list)
    stops: list[tuple[str, Reason]] = field(default_factory=list)
    forget: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)
    variants: dict[str, tuple[VariantSpec, ...]] = field(default_factory=dict)
    delete: bool = False
    retry_at: int | None = None

    def changes(self, view: View) -> bool:
        return bool(
            self.endpoint != view.endpoint
            or self.starts
            or self.stops
            or self.forget
            or self.drop
            or self.variants
            or self.delete
        )

    def wait_until(self, at: int) -> None:
        self.retry_at = at if self.retry_at is None else min(self.retry_at, at)


def serving_of(replicas: Sequence[ReplicaRecord]) -> list[ReplicaRecord]:
    return [item for item in replicas if item.serves]
