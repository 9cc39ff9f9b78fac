"""Alarms and their history in the shapes of CloudWatch."""

from __future__ import annotations

from typing import Any

from ridgeline_service.control.names import to_datetime
from ridgeline_service.store.alarms import AlarmRecord, HistoryRecord


def shown_alarm(alarm: AlarmRecord) -> dict[str, Any]:
    """What PutMetricAlarm was given, and the state."""
    shown: dict[str, Any] = {
        **{"OKActions": [], "AlarmActions": [], "InsufficientDataActions": [], "Dimensions": []},
        **alarm.config,
        "AlarmName": alarm.name,
        "AlarmArn": alarm.arn,
        "AlarmConfigurationUpdatedTimestamp": to_datetime(alarm.configured_at),
        "ActionsEnabled": alarm.actions_enabled,
        "StateValue": alarm.state.value,
        "StateReason": alarm.reason,
        "StateUpdatedTimestamp": to_datetime(alarm.updated_at),
        "StateTransitionedTimestamp": to_datetime(alarm.transitioned_at),
    }
    if alarm.data:
        shown["StateReasonData"] = alarm.data
    return shown


def shown_history(record: HistoryRecord) -> dict[str, Any]:
    return {
        "AlarmName": record.alarm,
        "AlarmType": "MetricAlarm",
        "Timestamp": to_datetime(record.at),
        "HistoryItemType": record.kind,
        "HistorySummary": record.summary,
        "HistoryData": record.data,
    }
