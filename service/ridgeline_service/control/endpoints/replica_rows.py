"""Rows of replicas as their life writes them: under the claim, with an event for every status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Unpack

from sqlalchemy import Connection

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.failures import LOG_LINES_READ
from ridgeline_service.control.endpoints.probe import Identity
from ridgeline_service.control.endpoints.replica_logs import last_lines
from ridgeline_service.store import endpoints, replicas
from ridgeline_service.store.records import ReplicaRecord, Stage, VariantSpec
from ridgeline_service.store.replicas import ReplicaChanges
from ridgeline_service.store.states import Reason, ReplicaStatus


class ReplicaRows:
    """``changed`` is called after every change of a status."""

    def __init__(self, context: Context, holder: str, changed: Callable[[], None]) -> None:
        self._context = context
        self._holder = holder
        self._changed = changed

    def change(self, replica: ReplicaRecord, **changes: Unpack[ReplicaChanges]) -> bool:
        """One transaction. Returns whether the claim was still held, else nothing was written."""
        with self._context.db.write() as connection:
            held = self.write(connection, replica, **changes)
        if held and "status" in changes:
            self._changed()
        return held

    def write(
        self, connection: Connection, replica: ReplicaRecord, **changes: Unpack[ReplicaChanges]
    ) -> bool:
        held = replicas.change_replica(connection, replica.id, token=self._holder, **changes)
        if held and "status" in changes:
            self._context.event(
                connection,
                resource_of(replica),
                changes["status"],
                changes.get("reason", Reason.NONE),
                changes.get("message", ""),
            )
        return held

    def ready(self, replica: ReplicaRecord, now: int, task: str, stages: tuple[Stage, ...]) -> None:
        """It serves. Its task is kept with the deployment, for the times when no replica does."""
        with self._context.db.write() as connection:
            held = self.write(
                connection,
                replica,
                status=ReplicaStatus.READY,
                reason=Reason.NONE,
                message="",
                changed_at=now,
                ready_at=now,
                task=task,
                stages=stages,
            )
            if held and task:
                endpoints.change_task(connection, replica.deployment_id, task)
        if held:
            self._changed()

    def note(self, replica: ReplicaRecord, stages: tuple[Stage, ...]) -> None:
        """Progress: no event, nobody is woken."""
        with self._context.db.write() as connection:
            replicas.change_replica(connection, replica.id, token=self._holder, stages=stages)

    def variant(self, replica: ReplicaRecord) -> VariantSpec | None:
        """None if its endpoint is gone."""
        with self._context.db.read() as connection:
            return variant_of(connection, replica)

    def log_tail(self, replica: ReplicaRecord) -> list[str]:
        """What it wrote last, oldest line first."""
        with self._context.db.read() as connection:
            endpoint = endpoints.get_endpoint(connection, replica.endpoint_arn)
        if endpoint is None:
            return []
        return last_lines(self._context.data_dir, endpoint.name, replica, LOG_LINES_READ)


def resource_of(replica: ReplicaRecord) -> str:
    """What events call it."""
    return f"{replica.endpoint_arn}/{replica.variant}/{replica.id}"


def variant_of(connection: Connection, replica: ReplicaRecord) -> VariantSpec | None:
    deployment = endpoints.get_deployment(connection, replica.deployment_id)
    return None if deployment is None else deployment.variant(replica.variant)


def joined(replica: ReplicaRecord, identity: Identity, now: int) -> tuple[Stage, ...]:
    """Stages of staging, then those that the server told of."""
    told = {stage.name for stage in identity.stages}
    dated = (
        replace(stage, began=now - int(stage.seconds * 1e6)) if stage.state == "running" else stage
        for stage in identity.stages
    )
    return (*(stage for stage in replica.stages if stage.name not in told), *dated)
