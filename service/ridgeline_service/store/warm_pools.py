"""Warm pools: what is kept ready of a training job for the next one of its kind.

One row a job that asked for a pool, from the job's creation on. Times are whole microseconds since
the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, TypedDict, Unpack

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from ridgeline_service.store.claims import Claims
from ridgeline_service.store.job_records import Instance, JobStatus
from ridgeline_service.store.tables import jobs, warm_pools

CLAIMS = Claims(warm_pools, warm_pools.c.job_arn)

_COLUMNS = warm_pools.c


class PoolStatus(StrEnum):
    """SageMaker's own words."""

    IN_USE = "InUse"
    AVAILABLE = "Available"
    REUSED = "Reused"
    TERMINATED = "Terminated"


@dataclass(frozen=True)
class PoolRecord:
    """``kind`` is the same for jobs that may use each other's pools; ``instances`` are the runners
    that wait, or that still have to be ended; ``memory_bytes`` is declared by all together.
    ``job_ended`` is no column: whether its job is over."""

    job_arn: str
    status: PoolStatus
    kind: str
    keep_alive_s: int
    runtime: str
    instance_count: int
    memory_bytes: int
    instances: tuple[Instance, ...] = ()
    available_at: int | None = None
    ended_at: int | None = None
    reused_by: str = ""
    lock_token: str | None = None
    lock_expires_at: int = 0
    job_ended: bool = False

    @property
    def expires_at(self) -> int | None:
        """None while it is not available yet."""
        kept = int(self.keep_alive_s * 1e6)
        return None if self.available_at is None else self.available_at + kept

    @property
    def is_ready(self) -> bool:
        return all(instance.pid is not None for instance in self.instances)


class PoolChanges(TypedDict, total=False):
    status: PoolStatus
    keep_alive_s: int
    instances: tuple[Instance, ...]
    available_at: int
    ended_at: int
    reused_by: str


def add_pool(connection: Connection, pool: PoolRecord) -> None:
    connection.execute(insert(warm_pools), _columns(pool.__dict__))


def get_pool(connection: Connection, job_arn: str) -> PoolRecord | None:
    row = connection.execute(select(warm_pools).where(_COLUMNS.job_arn == job_arn))
    found = row.mappings().first()
    return None if found is None else _pool(found)


def living_pools(connection: Connection, *conditions: ColumnElement[bool]) -> list[PoolRecord]:
    """Those with work left to do: with a job that runs, a time to wait for, processes to end."""
    living = [PoolStatus.IN_USE, PoolStatus.AVAILABLE]
    running = [status.value for status in JobStatus if not status.ended]
    job_ended = func.coalesce(jobs.c.status, "").not_in(running).label("job_ended")
    statement = (
        select(warm_pools, job_ended)
        .outerjoin(jobs, jobs.c.arn == _COLUMNS.job_arn)
        .where(or_(_COLUMNS.status.in_(living), _COLUMNS.has_instances.is_(True)), *conditions)
    )
    rows = connection.execute(statement.order_by(_COLUMNS.job_arn)).mappings()
    return [_pool(row) for row in rows]


def pools_of(connection: Connection, job_arns: list[str]) -> dict[str, PoolRecord]:
    statement = select(warm_pools).where(_COLUMNS.job_arn.in_(job_arns))
    return {row["job_arn"]: _pool(row) for row in connection.execute(statement).mappings()}


def has_pool(status: PoolStatus) -> ColumnElement[bool]:
    """Of a training job: that it has a pool of that status."""
    return jobs.c.arn.in_(select(_COLUMNS.job_arn).where(_COLUMNS.status == status))


def available_load(connection: Connection) -> tuple[int, int]:
    """Instances that wait on this machine, and the bytes they declare."""
    statement = select(
        func.coalesce(func.sum(_COLUMNS.instance_count), 0),
        func.coalesce(func.sum(_COLUMNS.memory_bytes), 0),
    ).where(_COLUMNS.status == PoolStatus.AVAILABLE)
    row = connection.execute(statement).one()
    return int(row[0]), int(row[1])


def take_pool(connection: Connection, kind: str, job_name: str, now: int) -> PoolRecord | None:
    """Hand the runners of a pool of that kind to a job: the one that ends soonest. None if none is
    ready."""
    statement = select(warm_pools).where(
        _COLUMNS.kind == kind, _COLUMNS.status == PoolStatus.AVAILABLE
    )
    pools = [_pool(row) for row in connection.execute(statement).mappings()]
    ready = [pool for pool in pools if pool.is_ready and (pool.expires_at or 0) > now]
    for pool in sorted(ready, key=lambda pool: pool.expires_at or 0):
        taken: PoolChanges = {
            "status": PoolStatus.REUSED,
            "reused_by": job_name,
            "ended_at": now,
            "instances": (),
        }
        if move_pool(connection, pool, **taken):
            return pool
    return None


def is_coming(connection: Connection, kind: str) -> bool:
    """Whether a pool of that kind will soon have runners, or be over: its job has just ended well,
    or its runners start."""
    statement = (
        select(warm_pools)
        .join(jobs, jobs.c.arn == _COLUMNS.job_arn)
        .where(
            _COLUMNS.kind == kind,
            or_(
                _COLUMNS.status == PoolStatus.AVAILABLE,
                and_(
                    _COLUMNS.status == PoolStatus.IN_USE, jobs.c.status == JobStatus.COMPLETED.value
                ),
            ),
        )
    )
    pools = [_pool(row) for row in connection.execute(statement).mappings()]
    return any(pool.status is PoolStatus.IN_USE or not pool.is_ready for pool in pools)


def end_a_pool(connection: Connection) -> bool:
    """Give up the pool that has waited longest. Whether there was one."""
    statement = (
        select(warm_pools)
        .where(_COLUMNS.status == PoolStatus.AVAILABLE)
        .order_by(_COLUMNS.available_at)
        .limit(1)
    )
    row = connection.execute(statement).mappings().first()
    return row is not None and move_pool(connection, _pool(row), status=PoolStatus.TERMINATED)


def move_pool(connection: Connection, pool: PoolRecord, **changes: Unpack[PoolChanges]) -> bool:
    """Write columns of a pool that still has the status of ``pool``. Returns whether it had."""
    statement = update(warm_pools).where(
        _COLUMNS.job_arn == pool.job_arn, _COLUMNS.status == pool.status
    )
    return connection.execute(statement.values(**_columns(changes))).rowcount == 1


def delete_pool(connection: Connection, job_arn: str) -> None:
    connection.execute(delete(warm_pools).where(_COLUMNS.job_arn == job_arn))


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in values.items() if name != "job_ended"}
    if "instances" in found:
        found["has_instances"] = bool(found["instances"])
        found["instances"] = [asdict(instance) for instance in found["instances"]]
    return found


def _pool(row: RowMapping) -> PoolRecord:
    kept = {name: value for name, value in row.items() if name != "has_instances"}
    return PoolRecord(
        **{
            **kept,
            "status": PoolStatus(row["status"]),
            "instances": tuple(Instance(**item) for item in row["instances"]),
        }
    )
