"""CloudWatch alarms and their history: rows and queries.

Times are whole microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict, Unpack

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from ridgeline_service.store.records import Document
from ridgeline_service.store.tables import alarm_history, alarms

HISTORY_KEPT = 5000


class AlarmState(StrEnum):
    """CloudWatch's own words."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


_ACTIONS = {
    AlarmState.OK: "OKActions",
    AlarmState.ALARM: "AlarmActions",
    AlarmState.INSUFFICIENT_DATA: "InsufficientDataActions",
}


@dataclass(frozen=True)
class AlarmRecord:
    """``config`` holds what PutMetricAlarm was given; ``data`` is the StateReasonData, JSON.
    ``updated_at`` is when the state was last set, ``transitioned_at`` when it last became
    another."""

    name: str
    arn: str
    config: Document
    configured_at: int
    actions_enabled: bool
    state: AlarmState
    reason: str
    data: str
    updated_at: int
    transitioned_at: int

    @property
    def actions(self) -> tuple[str, ...]:
        """ARNs of what it may set off, in whatever state."""
        return tuple(arn for name in _ACTIONS.values() for arn in self.config.get(name) or ())

    @property
    def set_off(self) -> tuple[str, ...]:
        """ARNs of what it sets off now."""
        if not self.actions_enabled:
            return ()
        return tuple(self.config.get(_ACTIONS[self.state]) or ())


class AlarmChanges(TypedDict, total=False):
    config: Document
    configured_at: int
    actions_enabled: bool
    state: AlarmState
    reason: str
    data: str
    updated_at: int
    transitioned_at: int


@dataclass(frozen=True)
class HistoryRecord:
    """What happened to an alarm; ``data`` is CloudWatch's HistoryData, JSON."""

    id: str
    alarm: str
    at: int
    kind: str
    summary: str
    data: str


def add_alarm(connection: Connection, record: AlarmRecord) -> None:
    """Raises sqlalchemy's IntegrityError if the name is taken."""
    connection.execute(insert(alarms), {**record.__dict__, "config": dict(record.config)})


def get_alarm(connection: Connection, name: str, *, for_update: bool = False) -> AlarmRecord | None:
    statement = select(alarms).where(alarms.c.name == name)
    if for_update:
        statement = statement.with_for_update()
    row = connection.execute(statement).mappings().first()
    return None if row is None else _alarm(row)


def all_alarms(connection: Connection) -> list[AlarmRecord]:
    """By name."""
    rows = connection.execute(select(alarms).order_by(alarms.c.name))
    return [_alarm(row) for row in rows.mappings()]


def ringing(connection: Connection, names: Collection[str]) -> list[AlarmRecord]:
    """Those of the names that are in ALARM."""
    if not names:
        return []
    statement = select(alarms).where(alarms.c.name.in_(names), alarms.c.state == AlarmState.ALARM)
    return [_alarm(row) for row in connection.execute(statement).mappings()]


def change_alarm(connection: Connection, name: str, **changes: Unpack[AlarmChanges]) -> None:
    connection.execute(update(alarms).where(alarms.c.name == name).values(**changes))


def delete_alarm(connection: Connection, name: str) -> None:
    connection.execute(delete(alarms).where(alarms.c.name == name))


def add_history(connection: Connection, record: HistoryRecord) -> None:
    """Beyond ``HISTORY_KEPT`` of all alarms the oldest go."""
    connection.execute(insert(alarm_history), dict(record.__dict__))
    columns = alarm_history.c
    newest = select(columns.id).order_by(columns.at.desc(), columns.id.desc()).limit(HISTORY_KEPT)
    connection.execute(delete(alarm_history).where(columns.id.not_in(newest)))


def history(connection: Connection, alarm: str | None = None) -> list[HistoryRecord]:
    """Oldest first; of one alarm, or of all."""
    columns = alarm_history.c
    statement = select(alarm_history).order_by(columns.at, columns.id)
    if alarm is not None:
        statement = statement.where(columns.alarm == alarm)
    return [HistoryRecord(**row) for row in connection.execute(statement).mappings()]


def _alarm(row: RowMapping) -> AlarmRecord:
    return AlarmRecord(**{**row, "state": AlarmState(row["state"])})
