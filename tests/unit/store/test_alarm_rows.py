"""Alarms and step policies come back as they were written, from both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings
from ridgeline_service.store import alarms as rows
from ridgeline_service.store import open_database
from ridgeline_service.store.alarms import AlarmRecord, AlarmState, HistoryRecord

ALARM = AlarmRecord(
    name="high é",
    arn="arn:aws:cloudwatch:r:1:alarm:high",
    config={"Threshold": 2.5, "AlarmActions": ["arn:policy"]},
    configured_at=1,
    actions_enabled=True,
    state=AlarmState.INSUFFICIENT_DATA,
    reason="",
    data="",
    updated_at=1,
    transitioned_at=1,
)


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request, tmp_path):
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgresql")
    found = open_database(Settings(database_url=url), DataDir(tmp_path))
    yield found
    found.close()


def test_an_alarm_and_its_states(db):
    with db.write() as connection:
        rows.add_alarm(connection, ALARM)
        rows.change_alarm(connection, ALARM.name, state=AlarmState.ALARM, reason="25 > 2.5")
    with db.read() as connection:
        ringing = replace(ALARM, state=AlarmState.ALARM, reason="25 > 2.5")
        assert rows.get_alarm(connection, ALARM.name) == ringing
        assert rows.ringing(connection, [ALARM.name, "other"]) == [ringing]
        assert ringing.set_off == ("arn:policy",)
        assert rows.ringing(connection, []) == []
    with db.write() as connection:
        rows.change_alarm(connection, ALARM.name, actions_enabled=False)
        assert rows.all_alarms(connection)[0].set_off == ()
        rows.delete_alarm(connection, ALARM.name)
        assert rows.all_alarms(connection) == []


def test_history_keeps_the_newest(db, monkeypatch):
    monkeypatch.setattr(rows, "HISTORY_KEPT", 3)
    records = [HistoryRecord(str(n), "ab"[n % 2], n, "StateUpdate", "s", "{}") for n in range(5)]
    with db.write() as connection:
        for record in records:
            rows.add_history(connection, record)
        assert rows.history(connection) == records[2:]
        assert rows.history(connection, "a") == [records[2], records[4]]
