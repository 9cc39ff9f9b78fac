"""How an alarm gets another state: one row changed, and what its history says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import Connection

from ridgeline_service.control.context import Context
from ridgeline_service.store import alarms as rows
from ridgeline_service.store.alarms import AlarmRecord, AlarmState, HistoryRecord

STATE_UPDATE = "StateUpdate"
CONFIGURATION_UPDATE = "ConfigurationUpdate"


def set_state(
    context: Context,
    connection: Connection,
    alarm: AlarmRecord,
    state: AlarmState,
    reason: str,
    data: str,
) -> None:
    """The state, also where it is the same; only another one is noted."""
    now = context.now()
    changes = rows.AlarmChanges(state=state, reason=reason, data=data, updated_at=now)
    if state is not alarm.state:
        changes["transitioned_at"] = now
        _note_transition(context, connection, alarm, state, reason)
    rows.change_alarm(connection, alarm.name, **changes)


def note(
    context: Context,
    connection: Connection,
    alarm: str,
    kind: str,
    summary: str,
    data: Mapping[str, object],
) -> None:
    """What happened to an alarm, in its history."""
    text = json.dumps({"version": "1.0", **data})
    record = HistoryRecord(context.ids(), alarm, context.now(), kind, summary, text)
    rows.add_history(connection, record)


def _note_transition(
    context: Context, connection: Connection, alarm: AlarmRecord, state: AlarmState, reason: str
) -> None:
    data = {
        "oldState": {"stateValue": alarm.state, "stateReason": alarm.reason},
        "newState": {"stateValue": state, "stateReason": reason},
    }
    summary = f"Alarm updated from {alarm.state} to {state}"
    note(context, connection, alarm.name, STATE_UPDATE, summary, data)
    context.event(connection, alarm.arn, "Alarm", state, reason)
