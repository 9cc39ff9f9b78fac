"""Jobs of all kinds: the queries over their table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from ridgeline_service.store.claims import Claims
from ridgeline_service.store.job_records import (
    Instance,
    JobKind,
    JobPhase,
    JobRecord,
    JobStatus,
    Metric,
    Moment,
    columns_of,
    job_of,
)
from ridgeline_service.store.records import Document
from ridgeline_service.store.resources import ListFilter, page_rows
from ridgeline_service.store.states import Desired
from ridgeline_service.store.tables import jobs

CLAIMS = Claims(jobs, jobs.c.arn)

_ADMITTED = [phase for phase in JobPhase if phase.admitted]


class JobChanges(TypedDict, total=False):
    modified_at: int
    status: JobStatus
    phase: JobPhase
    cause: str
    failure_reason: str
    desired: Desired
    request: Document
    attempt: int
    queued_at: int
    moments: tuple[Moment, ...]
    settled: int
    instances: tuple[Instance, ...]
    metrics: tuple[Metric, ...]
    artifacts: str
    exit_message: str
    started_at: int | None
    ended_at: int | None
    billable_us: int
    boot: str


def add_job(connection: Connection, record: JobRecord) -> None:
    """Raises sqlalchemy's IntegrityError if the name is taken."""
    connection.execute(insert(jobs), columns_of(record.__dict__))


def get_job(connection: Connection, arn: str, *, for_update: bool = False) -> JobRecord | None:
    statement = select(jobs).where(jobs.c.arn == arn)
    if for_update:
        statement = statement.with_for_update()
    row = connection.execute(statement).mappings().first()
    return None if row is None else job_of(row)


def living_jobs(connection: Connection, *conditions: ColumnElement[bool]) -> list[JobRecord]:
    """Those with work left to do, oldest first."""
    columns = jobs.c
    statement = select(jobs).where(columns.phase != JobPhase.ENDED, *conditions)
    rows = connection.execute(statement.order_by(columns.queued_at, columns.arn)).mappings()
    return [job_of(row) for row in rows]


def page_jobs(
    connection: Connection, kind: JobKind, wanted: ListFilter, *conditions: ColumnElement[bool]
) -> tuple[list[JobRecord], str | None]:
    rows, token = page_rows(connection, jobs, wanted, jobs.c.kind == kind, *conditions)
    return [job_of(row) for row in rows], token


def admitted_load(connection: Connection) -> tuple[int, int]:
    """Instances of jobs that run or start on this machine, and the bytes they declare."""
    columns = jobs.c
    statement = select(
        func.coalesce(func.sum(columns.instance_count), 0),
        func.coalesce(func.sum(columns.memory_bytes), 0),
    ).where(columns.phase.in_(_ADMITTED))
    row = connection.execute(statement).one()
    return int(row[0]), int(row[1])


def change_job(
    connection: Connection, arn: str, *, token: str | None = None, **changes: Unpack[JobChanges]
) -> bool:
    """Write columns; with ``token`` only if the claim is still held. Returns whether it was."""
    statement = update(jobs).where(jobs.c.arn == arn)
    if token is not None:
        statement = statement.where(jobs.c.lock_token == token)
    values: dict[str, Any] = columns_of(changes)
    return connection.execute(statement.values(**values)).rowcount == 1


def tell_wait(connection: Connection, job: JobRecord) -> bool:
    """Write the moments of a job that waits for room; False if it does so no longer."""
    values = columns_of({"moments": job.moments, "settled": len(job.moments)})
    statement = update(jobs).where(jobs.c.arn == job.arn, jobs.c.phase == JobPhase.QUEUED)
    return connection.execute(statement.values(**values)).rowcount == 1


def forget_boot(connection: Connection, arns: Sequence[str]) -> None:
    """The service has been down since these jobs were started, as when the machine restarts."""
    connection.execute(update(jobs).where(jobs.c.arn.in_(arns)).values(boot=""))


def delete_job(connection: Connection, arn: str) -> None:
    connection.execute(delete(jobs).where(jobs.c.arn == arn))
