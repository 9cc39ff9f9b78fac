"""Replicas: the queries over their table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, func, insert, select, update

from ridgeline_service.store.claims import Claims
from ridgeline_service.store.records import ReplicaRecord, Stage
from ridgeline_service.store.states import Desired, Reason, ReplicaStatus
from ridgeline_service.store.tables import endpoints, replicas

CLAIMS = Claims(replicas, replicas.c.id)

_ENDED = [status for status in ReplicaStatus if status.ended]
_ADMITTED = [status for status in ReplicaStatus if status.admitted]


class ReplicaChanges(TypedDict, total=False):
    status: ReplicaStatus
    reason: Reason
    message: str
    desired: Desired
    changed_at: int
    launched_at: int | None
    ready_at: int | None
    port: int | None
    pid: int | None
    start_time: int | None
    task: str
    stages: tuple[Stage, ...]


def add_replica(connection: Connection, record: ReplicaRecord) -> None:
    values = {**record.__dict__, "stages": [asdict(stage) for stage in record.stages]}
    connection.execute(insert(replicas), values)


def get_replica(connection: Connection, replica_id: str) -> ReplicaRecord | None:
    statement = select(replicas).where(replicas.c.id == replica_id)
    row = connection.execute(statement).mappings().first()
    return None if row is None else _replica(row)


def replicas_of(connection: Connection, endpoint_arn: str) -> list[ReplicaRecord]:
    """Oldest first."""
    return _ordered(connection, replicas.c.endpoint_arn == endpoint_arn)


def all_replicas(connection: Connection) -> list[ReplicaRecord]:
    return _ordered(connection)


def living_replicas(
    connection: Connection, *conditions: ColumnElement[bool]
) -> list[ReplicaRecord]:
    """Those with work left to do: neither stopped nor failed."""
    return _ordered(connection, replicas.c.status.not_in(_ENDED), *conditions)


def admitted_load(connection: Connection) -> tuple[int, int]:
    """Replicas that run or start on this machine, and the bytes they declare."""
    statement = select(func.count(), func.coalesce(func.sum(replicas.c.memory_bytes), 0))
    row = connection.execute(statement.where(replicas.c.status.in_(_ADMITTED))).one()
    return int(row[0]), int(row[1])


def wanted_count(connection: Connection) -> int:
    """Replicas that this service will run once every update in progress has succeeded."""
    current = func.coalesce(endpoints.c.pending_deployment, endpoints.c.active_deployment)
    statement = (
        select(func.count())
        .select_from(replicas)
        .join(endpoints, endpoints.c.arn == replicas.c.endpoint_arn)
        .where(
            replicas.c.deployment_id == current,
            replicas.c.desired == Desired.RUNNING,
            replicas.c.status.not_in(_ENDED),
        )
    )
    return int(connection.execute(statement).scalar_one())


def change_replica(
    connection: Connection,
    replica_id: str,
    *,
    token: str | None = None,
    **changes: Unpack[ReplicaChanges],
) -> bool:
    """Write columns; with ``token`` only if the claim is still held. Returns whether it was."""
    values: dict[str, Any] = dict(changes)
    if "stages" in changes:
        values["stages"] = [asdict(stage) for stage in changes["stages"]]
    statement = update(replicas).where(replicas.c.id == replica_id)
    if token is not None:
        statement = statement.where(replicas.c.lock_token == token)
    return connection.execute(statement.values(**values)).rowcount == 1


def want_stopped(connection: Connection, ids: Iterable[str], reason: Reason) -> None:
    """Ask for replicas to be stopped. Those that ended already stay as they are."""
    connection.execute(
        update(replicas)
        .where(replicas.c.id.in_(list(ids)), replicas.c.status.not_in(_ENDED))
        .values(desired=Desired.STOPPED, reason=reason)
    )


def delete_replicas(connection: Connection, ids: Iterable[str]) -> None:
    connection.execute(delete(replicas).where(replicas.c.id.in_(list(ids))))


def _ordered(connection: Connection, *conditions: ColumnElement[bool]) -> list[ReplicaRecord]:
    statement = select(replicas).where(*conditions)
    rows = connection.execute(statement.order_by(replicas.c.created_at, replicas.c.id))
    return [_replica(row) for row in rows.mappings()]


def _replica(row: RowMapping) -> ReplicaRecord:
    return ReplicaRecord(
        id=row["id"],
        endpoint_arn=row["endpoint_arn"],
        deployment_id=row["deployment_id"],
        variant=row["variant"],
        status=ReplicaStatus(row["status"]),
        reason=Reason(row["reason"]),
        message=row["message"],
        desired=Desired(row["desired"]),
        created_at=row["created_at"],
        changed_at=row["changed_at"],
        launched_at=row["launched_at"],
        ready_at=row["ready_at"],
        memory_bytes=row["memory_bytes"],
        port=row["port"],
        token=row["token"],
        pid=row["pid"],
        start_time=row["start_time"],
        task=row["task"],
        stages=tuple(Stage(**raw) for raw in row["stages"]),
        lock_token=row["lock_token"],
        lock_expires_at=row["lock_expires_at"],
    )
