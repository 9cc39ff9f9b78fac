"""Application Auto Scaling's operations: names joined to the verbs of the control plane."""

from __future__ import annotations

from ridgeline_service.api.control_port import Control
from ridgeline_service.api.operations import Table, handlers


def table(control: Control) -> Table:
    scaling = control.scaling
    return handlers(
        {
            "RegisterScalableTarget": scaling.register,
            "DescribeScalableTargets": scaling.describe_targets,
            "DeregisterScalableTarget": scaling.deregister,
            "PutScalingPolicy": scaling.put_policy,
            "DescribeScalingPolicies": scaling.describe_policies,
            "DeleteScalingPolicy": scaling.delete_policy,
            "DescribeScalingActivities": scaling.describe_activities,
            "PutScheduledAction": control.scheduled_actions.put,
            "DescribeScheduledActions": control.scheduled_actions.describe,
            "DeleteScheduledAction": control.scheduled_actions.delete,
            "TagResource": scaling.tag,
            "UntagResource": scaling.untag,
            "ListTagsForResource": scaling.list_tags,
        }
    )
