"""The scaler: holds each scalable target within its bounds and at what its policies ask for.

It looks every few seconds. A change is one transaction, which finds everything as it was measured
or does nothing: so two control planes do not both scale, and what a killed one began is on record.
How it ended is read from the endpoint, by whichever looks next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from ridgeline.errors import RidgelineError
from ridgeline_service.control.admitting import room_for
from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.capacities import change_in_place
from ridgeline_service.control.endpoints.planning import Planner
from ridgeline_service.control.names import to_micros
from ridgeline_service.control.scaling.measuring import values_since
from ridgeline_service.control.scaling.scheduled import ScheduledActions
from ridgeline_service.control.scaling.tracking import (
    DEFAULT_COOLDOWN_S,
    Tracking,
    tracking_of,
)
from ridgeline_service.placement.admission import Room
from ridgeline_service.store import endpoints
from ridgeline_service.store import scaling as rows
from ridgeline_service.store.records import EndpointRecord, VariantSpec
from ridgeline_service.store.scaling import (
    ActivityRecord,
    ActivityStatus,
    PolicyRecord,
    TargetRecord,
)
from ridgeline_service.store.states import EndpointStatus
from ridgeline_service.telemetry.samples import SampleStore

SCALED_EVERY_S = 5.0


@dataclass(frozen=True)
class _Wish:
    """A capacity, and what asks for it."""

    capacity: int
    cause: str


@dataclass(frozen=True)
class _Seen:
    """A target and its variant, as they were read."""

    target: TargetRecord
    endpoint: EndpointRecord
    variant: VariantSpec


class Scaler:
    """``step`` is the whole of it; the control plane repeats it."""

    def __init__(
        self, context: Context, planner: Planner, samples: SampleStore, room: Room
    ) -> None:
        self._context = context
        self._planner = planner
        self._samples = samples
        self._room = room
        self._scheduled = ScheduledActions(context)

    def step(self) -> None:
        """End activities whose endpoint has settled, run scheduled actions, then look at every
        target that is at rest."""
        self._scheduled.run_due()
        with self._context.db.read() as connection:
            begun = rows.open_activities(connection)
            targets = rows.all_targets(connection)
            policies = rows.all_policies(connection) if targets else []
        for activity in begun:
            self._settle(activity)
        for target in targets:
            mine = [each for each in policies if each.resource_id == target.resource_id]
            self._hold(target, mine)

    def _settle(self, activity: ActivityRecord) -> None:
        with self._context.db.write() as connection:
            target = rows.get_target(connection, activity.resource_id)
            seen = _read(connection, target) if target else None
            if target and seen is None:
                return  # the endpoint is still on its way
            message = f"Successfully set desired instance count to {activity.wanted}. "
            status, message = ActivityStatus.SUCCESSFUL, f"{message}Change successfully fulfilled."
            if seen is None:
                status, message = ActivityStatus.UNFULFILLED, "The target is not registered now."
            elif seen.variant.count != activity.wanted:
                status = ActivityStatus.FAILED
                message = seen.endpoint.failure_reason or "The endpoint was changed meanwhile."
            rows.end_activity(connection, activity.id, status, message, self._context.now())

    def _hold(self, target: TargetRecord, policies: Sequence[PolicyRecord]) -> None:
        with self._context.db.read() as connection:
            seen = _read(connection, target)
            last = rows.latest_activity(connection, target.resource_id)
        if seen is None:
            return
        wish = self._bounded(seen) or self._tracked(seen, policies)
        if wish is None or wish.capacity == seen.variant.count:
            return
        if last is None or not self._failed_lately(last, wish):
            self._scale(seen, wish)

    def _failed_lately(self, last: ActivityRecord, wish: _Wish) -> bool:
        """What has failed just now is not tried again at once."""
        again_at = last.started_at + to_micros(DEFAULT_COOLDOWN_S)
        failed = last.status is ActivityStatus.FAILED and last.wanted == wish.capacity
        return failed and self._context.now() < again_at

    def _bounded(self, seen: _Seen) -> _Wish | None:
        """Capacity that is out of bounds, because they or it were changed by hand."""
        low, high, count = seen.target.min_capacity, seen.target.max_capacity, seen.variant.count
        if count < low:
            return _Wish(low, f"minimum capacity was set to {low}")
        if count > high:
            return _Wish(high, f"maximum capacity was set to {high}")
        return None

    def _tracked(self, seen: _Seen, policies: Sequence[PolicyRecord]) -> _Wish | None:
        """Out as far as any policy asks; in when all that scale in agree, and then the least."""
        count, wishes, agreed = seen.variant.count, [], []
        for policy in policies:
            tracking = tracking_of(policy.tracking, seen.endpoint.name, seen.variant.name)
            wish = _Wish(self._wanted(seen, tracking), _cause(policy, tracking))
            wishes.append((wish, tracking))
            if tracking.scales_in:
                agreed.append((wish, tracking))
        if not wishes:
            return None
        most, tracking = max(wishes, key=lambda each: each[0].capacity)
        now = self._context.now()
        if most.capacity > count:
            if seen.target.suspended["DynamicScalingOutSuspended"]:
                return None
            if now < seen.target.scaled_out_at + to_micros(tracking.out_cooldown_s):
                return None
            return self._at_most(seen, most)
        if not agreed or seen.target.suspended["DynamicScalingInSuspended"]:
            return None
        least, tracking = max(agreed, key=lambda each: each[0].capacity)
        if now < seen.target.scaled_in_at + to_micros(tracking.in_cooldown_s):
            return None
        return _Wish(max(least.capacity, seen.target.min_capacity), least.cause)

    def _wanted(self, seen: _Seen, tracking: Tracking) -> int:
        since = max(seen.endpoint.modified_at, seen.target.created_at) / 1e6
        values = values_since(self._samples, tracking.measure, since, self._context.clock())
        return tracking.wanted(values, seen.variant.count)

    def _at_most(self, seen: _Seen, wish: _Wish) -> _Wish | None:
        high = seen.target.max_capacity
        if seen.variant.count >= high:
            reason = {"Code": "AlreadyAtMaxCapacity", "MaxCapacity": high}
            self._not_scaled(seen, wish, reason)
            return None
        return _Wish(min(wish.capacity, high), wish.cause)

    def _not_scaled(self, seen: _Seen, wish: _Wish, reason: Mapping[str, object]) -> None:
        """On record once, until something else is."""
        resource_id, now = seen.target.resource_id, self._context.now()
        with self._context.db.write() as connection:
            last = rows.latest_activity(connection, resource_id)
            if last is not None and last.not_scaled == (reason,):
                return
            self._record(
                connection,
                seen,
                wish,
                status=ActivityStatus.UNFULFILLED,
                ended_at=now,
                description="Attempting to scale due to alarm triggered",
                not_scaled=(reason,),
            )

    def _scale(self, seen: _Seen, wish: _Wish) -> None:
        """Ask for the capacity if nothing has changed; as much of it as there is room for."""
        context, target = self._context, seen.target
        with context.db.write() as connection:
            endpoint = endpoints.get_endpoint(connection, target.endpoint_arn, for_update=True)
            now_seen = _read(connection, rows.get_target(connection, target.resource_id))
            if now_seen != seen or endpoint is None:
                return
            out = wish.capacity > seen.variant.count
            capacity, problem = wish.capacity, ""
            if out:
                more = room_for(connection, self._room, seen.variant.memory_bytes)
                capacity = min(capacity, seen.variant.count + more)
                if capacity == seen.variant.count:
                    problem = "There is no room on this machine for another instance."
            if not problem:
                problem = self._change(connection, seen, capacity)
            self._record(
                connection,
                seen,
                wish if problem else _Wish(capacity, wish.cause),
                status=ActivityStatus.FAILED if problem else ActivityStatus.IN_PROGRESS,
                ended_at=context.now() if problem else None,
                message=problem,
            )
            if out:
                rows.change_target(connection, target.resource_id, scaled_out_at=context.now())
            else:
                rows.change_target(connection, target.resource_id, scaled_in_at=context.now())
            rows.prune_activities(connection)
        context.changed()

    def _change(self, connection: Connection, seen: _Seen, capacity: int) -> str:
        """Returns why not."""
        wanted = {"VariantName": seen.variant.name, "DesiredInstanceCount": capacity}
        try:
            change_in_place(self._context, self._planner, connection, seen.endpoint, [wanted])
        except RidgelineError as error:
            return str(error)
        return ""

    def _record(
        self,
        connection: Connection,
        seen: _Seen,
        wish: _Wish,
        *,
        status: ActivityStatus,
        ended_at: int | None,
        message: str = "",
        description: str = "",
        not_scaled: tuple[Mapping[str, object], ...] = (),
    ) -> None:
        context = self._context
        activity = ActivityRecord(
            id=context.ids(),
            resource_id=seen.target.resource_id,
            started_at=context.now(),
            ended_at=ended_at,
            status=status,
            wanted=wish.capacity,
            description=description or f"Setting desired instance count to {wish.capacity}.",
            cause=wish.cause,
            message=message,
            not_scaled=not_scaled,
        )
        rows.add_activity(connection, activity)


def _read(connection: Connection, target: TargetRecord | None) -> _Seen | None:
    """The variant of a target whose endpoint is at rest; None until it is."""
    endpoint = target and endpoints.get_endpoint(connection, target.endpoint_arn)
    if not target or not endpoint or endpoint.status is not EndpointStatus.IN_SERVICE:
        return None
    active = endpoint.active_deployment and endpoints.get_deployment(
        connection, endpoint.active_deployment
    )
    variant = active.variant(target.variant) if active else None
    return None if variant is None else _Seen(target, endpoint, variant)


def _cause(policy: PolicyRecord, tracking: Tracking) -> str:
    metric = tracking.measure.metric
    return (
        f"policy {policy.name} holds {metric.namespace}/{metric.name} at "
        f"{tracking.target:g} an instance"
    )
