"""CloudWatch's alarm operations: names joined to the verbs of the control plane."""

from __future__ import annotations

from ridgeline_service.api.control_port import Control
from ridgeline_service.api.operations import Table, handlers


def table(control: Control) -> Table:
    alarms = control.alarms
    return handlers(
        {
            "PutMetricAlarm": alarms.put,
            "DescribeAlarms": alarms.describe,
            "DescribeAlarmsForMetric": alarms.describe_for_metric,
            "DescribeAlarmHistory": alarms.describe_history,
            "DeleteAlarms": alarms.delete,
            "SetAlarmState": alarms.set_state,
            "EnableAlarmActions": alarms.enable_actions,
            "DisableAlarmActions": alarms.disable_actions,
            "TagResource": alarms.tag,
            "UntagResource": alarms.untag,
            "ListTagsForResource": alarms.list_tags,
        }
    )
