"""Jobs whose work is one command of ours: compilation jobs and inference recommendations jobs.

Times are whole microseconds since the epoch; a status is SageMaker's own word, which differs
between the kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, insert, select, update

from ridgeline_service.store.claims import Claims
from ridgeline_service.store.records import Document
from ridgeline_service.store.resources import ListFilter, page_rows
from ridgeline_service.store.states import Desired
from ridgeline_service.store.tables import command_jobs

CLAIMS = Claims(command_jobs, command_jobs.c.arn)

_ENDED = ("COMPLETED", "FAILED", "STOPPED")


class CommandKind(StrEnum):
    """What a job is, in the word of its ARN."""

    COMPILATION = "compilation-job"
    RECOMMENDATIONS = "inference-recommendations-job"

    @property
    def words(self) -> str:
        return self.replace("-", " ")


@dataclass(frozen=True)
class CommandJob:
    """``result`` is what the command gave, empty until then."""

    arn: str
    name: str
    kind: CommandKind
    id: str
    created_at: int
    modified_at: int
    status: str
    failure_reason: str
    desired: Desired
    request: Document
    result: Mapping[str, Any] = field(default_factory=dict)
    started_at: int | None = None
    ended_at: int | None = None
    lock_token: str | None = None
    lock_expires_at: int = 0

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


class CommandChanges(TypedDict, total=False):
    modified_at: int
    status: str
    failure_reason: str
    desired: Desired
    result: Mapping[str, Any]
    started_at: int
    ended_at: int


def add_command_job(connection: Connection, job: CommandJob) -> None:
    """Raises sqlalchemy's IntegrityError if the name is taken."""
    values = {**job.__dict__, "request": dict(job.request), "result": dict(job.result)}
    connection.execute(insert(command_jobs), values)


def get_command_job(
    connection: Connection, arn: str, *, for_update: bool = False
) -> CommandJob | None:
    statement = select(command_jobs).where(command_jobs.c.arn == arn)
    if for_update:
        statement = statement.with_for_update()
    row = connection.execute(statement).mappings().first()
    return None if row is None else _job(row)


def living_command_jobs(
    connection: Connection, *conditions: ColumnElement[bool]
) -> list[CommandJob]:
    """Those with work left to do, oldest first."""
    columns = command_jobs.c
    statement = select(command_jobs).where(columns.status.not_in(_ENDED), *conditions)
    rows = connection.execute(statement.order_by(columns.created_at, columns.arn)).mappings()
    return [_job(row) for row in rows]


def oldest_command_jobs(connection: Connection, count: int) -> list[str]:
    """ARNs of the first so many of those with work left to do."""
    columns = command_jobs.c
    statement = select(columns.arn).where(columns.status.not_in(_ENDED))
    ordered = statement.order_by(columns.created_at, columns.arn).limit(count)
    return list(connection.execute(ordered).scalars())


def page_command_jobs(
    connection: Connection, kind: CommandKind, wanted: ListFilter
) -> tuple[list[CommandJob], str | None]:
    rows, token = page_rows(connection, command_jobs, wanted, command_jobs.c.kind == kind)
    return [_job(row) for row in rows], token


def change_command_job(
    connection: Connection, arn: str, *, token: str | None = None, **changes: Unpack[CommandChanges]
) -> bool:
    """Write columns; with ``token`` only if the claim is still held. Returns whether it was."""
    statement = update(command_jobs).where(command_jobs.c.arn == arn)
    if token is not None:
        statement = statement.where(command_jobs.c.lock_token == token)
    return connection.execute(statement.values(**changes)).rowcount == 1


def delete_command_job(connection: Connection, arn: str) -> None:
    connection.execute(delete(command_jobs).where(command_jobs.c.arn == arn))


def _job(row: RowMapping) -> CommandJob:
    return CommandJob(
        **{**row, "kind": CommandKind(row["kind"]), "desired": Desired(row["desired"])}
    )
