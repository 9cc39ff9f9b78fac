"""Scalable targets, their policies and scheduled actions, and scaling activities: rows, queries.

Times are whole microseconds since the epoch. Targets go with their endpoint, and with them what
scales them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict, Unpack

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from ridgeline_service.store.records import Document
from ridgeline_service.store.tables import (
    scalable_targets,
    scaling_activities,
    scaling_policies,
    scheduled_actions,
)

ACTIVITIES_KEPT = 1000


class ActivityStatus(StrEnum):
    """Application Auto Scaling's own words, those of them that we need."""

    IN_PROGRESS = "InProgress"
    SUCCESSFUL = "Successful"
    UNFULFILLED = "Unfulfilled"
    FAILED = "Failed"


class PolicyKind(StrEnum):
    """Application Auto Scaling's PolicyType."""

    TRACKING = "TargetTrackingScaling"
    STEPS = "StepScaling"


@dataclass(frozen=True)
class TargetRecord:
    """A variant whose instances are counted by policies. ``scaled_out_at`` and ``scaled_in_at``
    are when that was last asked for, 0 before."""

    resource_id: str
    arn: str
    endpoint_arn: str
    variant: str
    created_at: int
    min_capacity: int
    max_capacity: int
    role_arn: str
    suspended: Document
    scaled_out_at: int = 0
    scaled_in_at: int = 0


class TargetChanges(TypedDict, total=False):
    min_capacity: int
    max_capacity: int
    role_arn: str
    suspended: Document
    scaled_out_at: int
    scaled_in_at: int


@dataclass(frozen=True)
class PolicyRecord:
    """``config`` is the configuration of its kind, as it was given."""

    arn: str
    name: str
    resource_id: str
    created_at: int
    kind: PolicyKind
    config: Document


@dataclass(frozen=True)
class ScheduleRecord:
    """``action`` has MinCapacity, MaxCapacity or both; ``next_at`` is when it is due."""

    arn: str
    name: str
    resource_id: str
    created_at: int
    schedule: str
    timezone: str
    start_at: int | None
    end_at: int | None
    action: Document
    next_at: int


@dataclass(frozen=True)
class ActivityRecord:
    """One change of a capacity, or one that was due and not made, for ``not_scaled``'s reasons.
    ``wanted`` is the capacity asked for."""

    id: str
    resource_id: str
    started_at: int
    status: ActivityStatus
    wanted: int
    description: str
    cause: str
    message: str = ""
    ended_at: int | None = None
    not_scaled: tuple[Document, ...] = ()


def add_target(connection: Connection, target: TargetRecord) -> None:
    """Raises sqlalchemy's IntegrityError if the variant is registered."""
    values = {**target.__dict__, "suspended": dict(target.suspended)}
    connection.execute(insert(scalable_targets), values)


def get_target(
    connection: Connection, resource_id: str, *, for_update: bool = False
) -> TargetRecord | None:
    statement = select(scalable_targets).where(scalable_targets.c.resource_id == resource_id)
    if for_update:
        statement = statement.with_for_update()
    row = connection.execute(statement).mappings().first()
    return None if row is None else TargetRecord(**row)


def target_of_arn(connection: Connection, arn: str) -> TargetRecord | None:
    statement = select(scalable_targets).where(scalable_targets.c.arn == arn)
    row = connection.execute(statement).mappings().first()
    return None if row is None else TargetRecord(**row)


def all_targets(connection: Connection) -> list[TargetRecord]:
    """By their resource."""
    rows = connection.execute(select(scalable_targets).order_by(scalable_targets.c.resource_id))
    return [TargetRecord(**row) for row in rows.mappings()]


def targets_of(connection: Connection, endpoint_arn: str) -> list[TargetRecord]:
    columns = scalable_targets.c
    rows = connection.execute(select(scalable_targets).where(columns.endpoint_arn == endpoint_arn))
    return [TargetRecord(**row) for row in rows.mappings()]


def change_target(
    connection: Connection, resource_id: str, **changes: Unpack[TargetChanges]
) -> None:
    columns = scalable_targets.c
    statement = update(scalable_targets).where(columns.resource_id == resource_id)
    connection.execute(statement.values(**changes))


def delete_target(connection: Connection, resource_id: str) -> None:
    """With its policies."""
    columns = scalable_targets.c
    connection.execute(delete(scalable_targets).where(columns.resource_id == resource_id))


def put_policy(connection: Connection, policy: PolicyRecord) -> None:
    """Add it, or give the one of that ARN its new configuration."""
    values = {**policy.__dict__, "config": dict(policy.config)}
    statement = update(scaling_policies).where(scaling_policies.c.arn == policy.arn)
    changed = statement.values(kind=policy.kind, config=values["config"])
    if connection.execute(changed).rowcount == 0:
        connection.execute(insert(scaling_policies), values)


def all_policies(connection: Connection) -> list[PolicyRecord]:
    """By their resource, then by name."""
    columns = scaling_policies.c
    ordered = select(scaling_policies).order_by(columns.resource_id, columns.name)
    return [_policy(row) for row in connection.execute(ordered).mappings()]


def get_policy(connection: Connection, resource_id: str, name: str) -> PolicyRecord | None:
    columns = scaling_policies.c
    statement = select(scaling_policies).where(
        columns.resource_id == resource_id, columns.name == name
    )
    row = connection.execute(statement).mappings().first()
    return None if row is None else _policy(row)


def policy_of_arn(connection: Connection, arn: str) -> PolicyRecord | None:
    statement = select(scaling_policies).where(scaling_policies.c.arn == arn)
    row = connection.execute(statement).mappings().first()
    return None if row is None else _policy(row)


def delete_policy(connection: Connection, arn: str) -> None:
    connection.execute(delete(scaling_policies).where(scaling_policies.c.arn == arn))


def put_schedule(connection: Connection, record: ScheduleRecord) -> None:
    """Add it, or let it take the place of the one of that ARN."""
    delete_schedule(connection, record.arn)
    values = {**record.__dict__, "action": dict(record.action)}
    connection.execute(insert(scheduled_actions), values)


def all_schedules(connection: Connection) -> list[ScheduleRecord]:
    """By their resource, then by name."""
    columns = scheduled_actions.c
    ordered = select(scheduled_actions).order_by(columns.resource_id, columns.name)
    return [ScheduleRecord(**row) for row in connection.execute(ordered).mappings()]


def due_schedules(connection: Connection, now: int) -> list[ScheduleRecord]:
    statement = select(scheduled_actions).where(scheduled_actions.c.next_at <= now)
    return [ScheduleRecord(**row) for row in connection.execute(statement).mappings()]


def get_schedule(
    connection: Connection, resource_id: str, name: str, *, for_update: bool = False
) -> ScheduleRecord | None:
    columns = scheduled_actions.c
    statement = select(scheduled_actions).where(
        columns.resource_id == resource_id, columns.name == name
    )
    if for_update:
        statement = statement.with_for_update()
    row = connection.execute(statement).mappings().first()
    return None if row is None else ScheduleRecord(**row)


def delete_schedule(connection: Connection, arn: str) -> None:
    connection.execute(delete(scheduled_actions).where(scheduled_actions.c.arn == arn))


def add_activity(connection: Connection, activity: ActivityRecord) -> None:
    values = {**activity.__dict__, "not_scaled": [dict(each) for each in activity.not_scaled]}
    connection.execute(insert(scaling_activities), values)


def end_activity(
    connection: Connection, id: str, status: ActivityStatus, message: str, ended_at: int
) -> None:
    statement = update(scaling_activities).where(scaling_activities.c.id == id)
    connection.execute(statement.values(status=status, message=message, ended_at=ended_at))


def open_activities(connection: Connection) -> list[ActivityRecord]:
    columns = scaling_activities.c
    statement = select(scaling_activities).where(columns.ended_at.is_(None))
    return [_activity(row) for row in connection.execute(statement).mappings()]


def latest_activity(connection: Connection, resource_id: str) -> ActivityRecord | None:
    found = activities(connection, limit=1, resource_ids=(resource_id,))
    return found[0] if found else None


def activities(
    connection: Connection, *, limit: int, resource_ids: Collection[str] | None = None
) -> list[ActivityRecord]:
    """Newest first."""
    columns = scaling_activities.c
    statement = select(scaling_activities)
    if resource_ids is not None:
        statement = statement.where(columns.resource_id.in_(resource_ids))
    ordered = statement.order_by(columns.started_at.desc(), columns.id.desc()).limit(limit)
    return [_activity(row) for row in connection.execute(ordered).mappings()]


def prune_activities(connection: Connection, keep: int = ACTIVITIES_KEPT) -> None:
    """Drop all but the newest ``keep``, and never one that is under way."""
    columns = scaling_activities.c
    newest = select(columns.id).order_by(columns.started_at.desc(), columns.id.desc()).limit(keep)
    old = columns.id.not_in(newest)
    connection.execute(delete(scaling_activities).where(old, columns.ended_at.is_not(None)))


def _policy(row: RowMapping) -> PolicyRecord:
    return PolicyRecord(**{**row, "kind": PolicyKind(row["kind"])})


def _activity(row: RowMapping) -> ActivityRecord:
    return ActivityRecord(
        **{
            **row,
            "status": ActivityStatus(row["status"]),
            "not_scaled": tuple(row["not_scaled"]),
        }
    )
