"""Scheduled actions: new bounds of a scalable target at a time, or again and again.

The verbs, and what the scaler does with those that are due. Instances follow as ever when bounds
change.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.capacities import least_instances
from ridgeline_service.control.listing import with_token
from ridgeline_service.control.names import micros_of, to_datetime, to_micros
from ridgeline_service.control.scaling.pages import page_of_named
from ridgeline_service.control.scaling.resources import (
    DIMENSION,
    NAMESPACE,
    ObjectNotFound,
    check_dimension,
    registered,
    variant_of,
)
from ridgeline_service.control.scaling.schedules import Schedule, schedule_of
from ridgeline_service.errors import ValidationException
from ridgeline_service.store import scaling as rows
from ridgeline_service.store.outage import log_failure
from ridgeline_service.store.scaling import ScheduleRecord

_DEFAULT_ZONE = "UTC"

log = logging.getLogger(__name__)


class ScheduledActions:
    """``put``, ``describe`` and ``delete`` are operations; the scaler calls ``run_due``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def put(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A new one, or changes of one: what is left out stays, except for its start and end."""
        check_dimension(request)
        context, name = self._context, request["ScheduledActionName"]
        with context.db.write() as connection:
            target = registered(connection, request["ResourceId"])
            _, deployment = variant_of(context, connection, target.resource_id)
            _check_action(request.get("ScalableTargetAction"), least_instances(deployment))
            former = rows.get_schedule(connection, target.resource_id, name)
            record = self._record(request, former)
            rows.put_schedule(connection, record)
            message = f"{name} is due at {record.schedule}, {record.timezone}."
            context.event(connection, target.endpoint_arn, "ScheduledAction", message=message)
        return {}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        check_dimension(request)
        with self._context.db.read() as connection:
            found = rows.all_schedules(connection)
        page, token = page_of_named(found, request, "ScheduledActionNames")
        return with_token({"ScheduledActions": [_shown(each) for each in page]}, token)

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        check_dimension(request)
        resource_id, name = request["ResourceId"], request["ScheduledActionName"]
        with self._context.db.write() as connection:
            record = rows.get_schedule(connection, resource_id, name)
            if record is None:
                raise ObjectNotFound(
                    f"No scheduled action found for service namespace: {NAMESPACE}, resource ID: "
                    f"{resource_id[:200]}, scalable dimension: {DIMENSION}, scheduled action "
                    f"name: {name[:200]}."
                )
            rows.delete_schedule(connection, record.arn)
        return {}

    def run_due(self) -> None:
        """In the order in which they were due last: of several that a service missed while it was
        down the newest holds."""
        now = self._context.clock()
        with self._context.db.read() as connection:
            due = rows.due_schedules(connection, to_micros(now))
        found = [(_schedule(record).latest(record.next_at / 1e6, now), record) for record in due]
        for _, record in sorted(found, key=lambda each: (each[0], each[1].arn)):
            try:
                self._run(record, now)
            except Exception as error:  # noqa: BLE001 - one action's bug must not stop the others
                log_failure(log, error, "scheduled action %s was not run", record.arn)

    def _run(self, seen: ScheduleRecord, now: float) -> None:
        """Once, whichever control plane comes first."""
        context = self._context
        with context.db.write() as connection:
            target = rows.get_target(connection, seen.resource_id, for_update=True)
            record = rows.get_schedule(connection, seen.resource_id, seen.name, for_update=True)
            if target is None or record != seen:
                return
            later = _schedule(record).after(now)
            if later is None:
                rows.delete_schedule(connection, record.arn)
            else:
                moved = ScheduleRecord(**{**record.__dict__, "next_at": to_micros(later)})
                rows.put_schedule(connection, moved)
            if target.suspended["ScheduledScalingSuspended"]:
                return
            low = record.action.get("MinCapacity", target.min_capacity)
            high = record.action.get("MaxCapacity", target.max_capacity)
            message = f"Scheduled action {record.name}: from {low} to {high} instances."
            if low > high:
                message = f"{message} Nothing is changed: the least is more than the most."
            else:
                rows.change_target(
                    connection, target.resource_id, min_capacity=low, max_capacity=high
                )
            context.event(connection, target.endpoint_arn, "ScheduledAction", message=message)

    def _record(self, request: Mapping[str, Any], former: ScheduleRecord | None) -> ScheduleRecord:
        now = self._context.now()
        expression = request.get("Schedule", former.schedule if former else None)
        if expression is None:
            raise ValidationException("Schedule is required to make a new scheduled action.")
        action = request.get("ScalableTargetAction", former.action if former else None)
        if not action:
            raise ValidationException(
                "ScalableTargetAction has neither MinCapacity nor MaxCapacity."
            )
        arn = former.arn if former else self._arn(request)
        record = ScheduleRecord(
            arn=arn,
            name=request["ScheduledActionName"],
            resource_id=request["ResourceId"],
            created_at=former.created_at if former else now,
            schedule=expression,
            timezone=request.get("Timezone", former.timezone if former else _DEFAULT_ZONE),
            start_at=micros_of(request.get("StartTime")),
            end_at=micros_of(request.get("EndTime")),
            action=dict(action),
            next_at=0,
        )
        later = _schedule(record).after(now / 1e6)
        if later is None:
            raise ValidationException(
                f"Schedule {expression[:100]} is never due from now on"
                f"{' to its EndTime' if record.end_at else ''}."
            )
        return ScheduleRecord(**{**record.__dict__, "next_at": to_micros(later)})

    def _arn(self, request: Mapping[str, Any]) -> str:
        settings = self._context.settings
        where = f"{settings.region}:{settings.account_id}"
        place = f"resource/{NAMESPACE}/{request['ResourceId']}"
        name = f"scheduledActionName/{request['ScheduledActionName']}"
        return f"arn:aws:autoscaling:{where}:scheduledAction:{self._context.ids()}:{place}:{name}"


def _check_action(action: Mapping[str, Any] | None, least: int) -> None:
    low, high = (action or {}).get("MinCapacity"), (action or {}).get("MaxCapacity")
    for name, value in (("MinCapacity", low), ("MaxCapacity", high)):
        if value is not None and value < least:
            raise ValidationException(f"{name} is {value}: it must be {least} or more.")
    if low is not None and high is not None and low > high:
        raise ValidationException(
            f"Minimum capacity {low} cannot be greater than maximum capacity {high}."
        )


def _schedule(record: ScheduleRecord) -> Schedule:
    anchor = record.created_at if record.start_at is None else record.start_at
    end = None if record.end_at is None else record.end_at / 1e6
    return schedule_of(record.schedule, record.timezone, anchor / 1e6, end)


def _shown(record: ScheduleRecord) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "ScheduledActionName": record.name,
        "ScheduledActionARN": record.arn,
        "ServiceNamespace": NAMESPACE,
        "Schedule": record.schedule,
        "Timezone": record.timezone,
        "ResourceId": record.resource_id,
        "ScalableDimension": DIMENSION,
        "ScalableTargetAction": dict(record.action),
        "CreationTime": to_datetime(record.created_at),
    }
    for name, moment in (("StartTime", record.start_at), ("EndTime", record.end_at)):
        if moment is not None:
            shown[name] = to_datetime(moment)
    return shown
