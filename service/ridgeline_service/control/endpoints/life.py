"""Applies decisions about endpoints: one short transaction each, decided again inside it.

Endpoints need no claim, since nothing slow happens to them: the row is locked for the moment of
the transaction. All slow work is a replica's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.decisions import decide
from ridgeline_service.control.endpoints.rollouts import Rollout, rollback_alarms
from ridgeline_service.control.endpoints.views import Decision, Start, View
from ridgeline_service.store import alarms, journal, replicas, scaling
from ridgeline_service.store import endpoints as rows
from ridgeline_service.store.alarms import AlarmRecord
from ridgeline_service.store.records import EndpointRecord, ReplicaRecord
from ridgeline_service.store.states import Desired, Reason, ReplicaStatus


@dataclass(frozen=True)
class Outcome:
    """``changed`` says that rows were written; ``retry_at`` when to look again (microseconds)."""

    changed: bool = False
    retry_at: int | None = None


class EndpointLife:
    """``tokens`` makes the secrets by which replicas know the gateway and the control plane."""

    def __init__(self, context: Context, tokens: Callable[[], str]) -> None:
        self._context = context
        self._tokens = tokens

    def reconcile_all(self) -> Outcome:
        """One step for every endpoint that needs one. Cheap when none does: one read."""
        changed, retry_at = False, None
        now = self._context.now()
        for view in self._views():
            decision = decide(view, now)
            if decision.changes(view):
                changed = self._apply(view.endpoint.arn) or changed
            if decision.retry_at is not None:
                retry_at = min(retry_at or decision.retry_at, decision.retry_at)
        return Outcome(changed, retry_at)

    def _views(self) -> list[View]:
        with self._context.db.read() as connection:
            endpoints = rows.all_endpoints(connection)
            if not endpoints:
                return []
            deployments = rows.all_deployments(connection)
            every = replicas.all_replicas(connection)
            return [
                View(
                    endpoint,
                    tuple(item for item in deployments if item.endpoint_arn == endpoint.arn),
                    tuple(item for item in every if item.endpoint_arn == endpoint.arn),
                    _ringing(connection, endpoint),
                )
                for endpoint in endpoints
            ]

    def _apply(self, arn: str) -> bool:
        with self._context.db.write() as connection:
            endpoint = rows.get_endpoint(connection, arn, for_update=True)
            if endpoint is None:
                return False
            view = View(
                endpoint,
                tuple(rows.deployments_of(connection, arn)),
                tuple(replicas.replicas_of(connection, arn)),
                _ringing(connection, endpoint),
            )
            decision = decide(view, self._context.now())
            if not decision.changes(view):
                return False
            self._write(connection, view, decision)
            return True

    def _write(self, connection: Connection, view: View, decision: Decision) -> None:
        arn = view.endpoint.arn
        if decision.delete:
            targets = scaling.targets_of(connection, arn)
            rows.delete_endpoint(connection, arn)
            for gone in (arn, *(each.arn for each in targets)):
                journal.remove_all_tags(connection, gone)
            self._context.event(connection, arn, "Deleted", Reason.REQUESTED)
            return
        for deployment_id, variants in decision.variants.items():
            rows.change_variants(connection, deployment_id, variants)
        for replica_id, reason in decision.stops:
            replicas.want_stopped(connection, [replica_id], reason)
        for start in decision.starts:
            self._add(connection, start)
        if decision.forget:
            replicas.delete_replicas(connection, decision.forget)
        for deployment_id in decision.drop:
            rows.delete_deployment(connection, deployment_id)
        if decision.endpoint != view.endpoint:
            self._write_endpoint(connection, view, decision)

    def _write_endpoint(self, connection: Connection, view: View, decision: Decision) -> None:
        new = decision.endpoint
        rows.change_endpoint(
            connection,
            new.arn,
            status=new.status,
            reason=new.reason,
            failure_reason=new.failure_reason,
            active_deployment=new.active_deployment,
            pending_deployment=new.pending_deployment,
            traffic_step=new.traffic_step,
            traffic_at=new.traffic_at,
            modified_at=self._context.now(),
        )
        if (new.status, new.reason) != (view.endpoint.status, view.endpoint.reason):
            self._context.event(connection, new.arn, new.status, new.reason, new.failure_reason)
        if view.pending is not None and new.traffic_step > view.endpoint.traffic_step:
            shares = Rollout.of(new.deployment_config).shares(
                view.pending.variants, new.traffic_step
            )
            self._context.event(connection, new.arn, "TrafficMoved", message=f"{shares.words}.")

    def _add(self, connection: Connection, start: Start) -> None:
        context = self._context
        record = ReplicaRecord(
            id=context.ids(),
            endpoint_arn=start.deployment.endpoint_arn,
            deployment_id=start.deployment.id,
            variant=start.variant.name,
            status=ReplicaStatus.PENDING,
            reason=Reason.NONE,
            message="",
            desired=Desired.RUNNING,
            created_at=context.now(),
            changed_at=context.now(),
            launched_at=None,
            ready_at=None,
            memory_bytes=start.variant.memory_bytes,
            port=None,
            token=self._tokens(),
            pid=None,
            start_time=None,
            task="",
        )
        replicas.add_replica(connection, record)
        resource = f"{record.endpoint_arn}/{record.variant}/{record.id}"
        context.event(connection, resource, record.status)


def _ringing(connection: Connection, endpoint: EndpointRecord) -> tuple[AlarmRecord, ...]:
    """Read only while there is an update that they could end."""
    if endpoint.pending_deployment is None or endpoint.active_deployment is None:
        return ()
    return tuple(alarms.ringing(connection, rollback_alarms(endpoint.deployment_config)))
