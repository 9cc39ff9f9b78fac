"""Tuning jobs and their trials: the queries over their tables."""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from ridgeline_service.store.claims import Claims
from ridgeline_service.store.resources import ListFilter, page_rows
from ridgeline_service.store.states import Desired
from ridgeline_service.store.tables import tuning_jobs, tuning_trials
from ridgeline_service.store.tuning_records import (
    TrialRecord,
    TuningRecord,
    TuningStatus,
    trial_columns,
    trial_of,
    tuning_columns,
    tuning_of,
)

CLAIMS = Claims(tuning_jobs, tuning_jobs.c.arn)

_LIVING = [status for status in TuningStatus if not status.ended]


class TuningChanges(TypedDict, total=False):
    modified_at: int
    status: TuningStatus
    cause: str
    failure_reason: str
    desired: Desired
    ended_at: int | None


def add_tuning(connection: Connection, record: TuningRecord) -> None:
    """Raises sqlalchemy's IntegrityError if the name is taken."""
    connection.execute(insert(tuning_jobs), tuning_columns(record.__dict__))


def get_tuning(
    connection: Connection, arn: str, *, for_update: bool = False
) -> TuningRecord | None:
    statement = select(tuning_jobs).where(tuning_jobs.c.arn == arn)
    if for_update:
        statement = statement.with_for_update()
    row = connection.execute(statement).mappings().first()
    return None if row is None else tuning_of(row)


def living_tunings(connection: Connection, *conditions: ColumnElement[bool]) -> list[TuningRecord]:
    """Those with work left to do, oldest first."""
    columns = tuning_jobs.c
    statement = select(tuning_jobs).where(columns.status.in_(_LIVING), *conditions)
    rows = connection.execute(statement.order_by(columns.created_at, columns.arn)).mappings()
    return [tuning_of(row) for row in rows]


def page_tunings(
    connection: Connection, wanted: ListFilter
) -> tuple[list[TuningRecord], str | None]:
    rows, token = page_rows(connection, tuning_jobs, wanted)
    return [tuning_of(row) for row in rows], token


def change_tuning(
    connection: Connection,
    arn: str,
    *,
    token: str | None = None,
    **changes: Unpack[TuningChanges],
) -> bool:
    """Write columns; with ``token`` only if the claim is still held. Returns whether it was."""
    statement = update(tuning_jobs).where(tuning_jobs.c.arn == arn)
    if token is not None:
        statement = statement.where(tuning_jobs.c.lock_token == token)
    values: dict[str, Any] = dict(changes)
    return connection.execute(statement.values(**values)).rowcount == 1


def delete_tuning(connection: Connection, arn: str) -> None:
    """With its trials; their training jobs stay."""
    connection.execute(delete(tuning_trials).where(tuning_trials.c.tuning_arn == arn))
    connection.execute(delete(tuning_jobs).where(tuning_jobs.c.arn == arn))


def add_trial(connection: Connection, trial: TrialRecord) -> None:
    """Raises sqlalchemy's IntegrityError if the tuning job has one of that number already."""
    connection.execute(insert(tuning_trials), trial_columns(trial))


def put_trial(connection: Connection, trial: TrialRecord) -> None:
    """Replace what is kept of a trial."""
    columns = tuning_trials.c
    connection.execute(
        update(tuning_trials)
        .where(columns.tuning_arn == trial.tuning_arn, columns.number == trial.number)
        .values(**trial_columns(trial))
    )


def trials_of(connection: Connection, tuning_arn: str) -> list[TrialRecord]:
    """In the order of their numbers."""
    columns = tuning_trials.c
    statement = select(tuning_trials).where(columns.tuning_arn == tuning_arn)
    rows = connection.execute(statement.order_by(columns.number)).mappings()
    return [trial_of(row) for row in rows]


def tuning_of_job(connection: Connection, job_arn: str) -> str | None:
    """The ARN of the tuning job that started a training job."""
    columns = tuning_trials.c
    statement = select(columns.tuning_arn).where(columns.arn == job_arn)
    return connection.execute(statement).scalar_one_or_none()


def page_trials(
    connection: Connection, tuning_arn: str, wanted: ListFilter
) -> tuple[list[TrialRecord], str | None]:
    """By objective, those without one are left out."""
    conditions = [tuning_trials.c.tuning_arn == tuning_arn]
    if wanted.order.key == "objective":
        conditions.append(tuning_trials.c.objective.is_not(None))
    rows, token = page_rows(connection, tuning_trials, wanted, *conditions)
    return [trial_of(row) for row in rows], token
