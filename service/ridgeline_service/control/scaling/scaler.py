"""The scaler: holds each scalable target within its bounds and at what its policies ask for.

It looks every few seconds. A change is one transaction, which finds everything as it was measured
or does nothing: so two control planes do not both scale, and what a killed one began is on record.
How it ended is read from the endpoint, by whichever looks next.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from ridgeline.errors import RidgelineError
from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.capacities import change_in_place
from ridgeline_service.control.endpoints.planning import Planner
from ridgeline_service.control.names import to_micros
from ridgeline_service.control.scaling.asks import Ask, Asks
from ridgeline_service.control.scaling.headroom import headroom
from ridgeline_service.control.scaling.scheduled import ScheduledActions
from ridgeline_service.control.scaling.seen import Seen, see
from ridgeline_service.control.scaling.tracking import DEFAULT_COOLDOWN_S
from ridgeline_service.placement.admission import Room
from ridgeline_service.store import endpoints
from ridgeline_service.store import scaling as rows
from ridgeline_service.store.alarms import AlarmRecord, all_alarms
from ridgeline_service.store.outage import log_failure
from ridgeline_service.store.scaling import (
    ActivityRecord,
    ActivityStatus,
    PolicyRecord,
    TargetRecord,
)
from ridgeline_service.telemetry.samples import SampleStore

SCALED_EVERY_S = 5.0
_NO_ROOM = "There is no room for another instance: "

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Wish:
    """A capacity, and what asks for it."""

    capacity: int
    cause: str


class Scaler:
    """``step`` is the whole of it; the control plane repeats it."""

    def __init__(
        self, context: Context, planner: Planner, samples: SampleStore, room: Room
    ) -> None:
        self._context = context
        self._planner = planner
        self._asks = Asks(samples, context.clock)
        self._room = room
        self._scheduled = ScheduledActions(context)

    def step(self) -> None:
        """Run scheduled actions, end activities whose endpoint has settled, then look at every
        target that is at rest. What fails for one target does not stop the others."""
        self._scheduled.run_due()
        with self._context.db.read() as connection:
            begun = rows.open_activities(connection)
            targets = rows.all_targets(connection)
            policies = rows.all_policies(connection) if targets else []
            alarms = all_alarms(connection) if policies else []
        for activity in begun:
            self._settle(activity)
        for target in targets:
            mine = [each for each in policies if each.resource_id == target.resource_id]
            try:
                self._hold(target, mine, alarms)
            except Exception as error:  # noqa: BLE001 - one target's bug must not stop the others
                log_failure(log, error, "%s was not scaled", target.resource_id)

    def _settle(self, activity: ActivityRecord) -> None:
        with self._context.db.write() as connection:
            target = rows.get_target(connection, activity.resource_id)
            seen = see(connection, target)
            if target is not None and seen is None:
                return  # the endpoint is still on its way
            status, message = _end_of(activity, seen)
            rows.end_activity(connection, activity.id, status, message, self._context.now())

    def _hold(
        self,
        target: TargetRecord,
        policies: Sequence[PolicyRecord],
        alarms: Sequence[AlarmRecord],
    ) -> None:
        with self._context.db.read() as connection:
            seen = see(connection, target)
            last = rows.latest_activity(connection, target.resource_id)
        if seen is None:
            return
        wish = _bounded(seen) or self._asked(seen, self._asks.of(seen, policies, alarms))
        if wish is None or wish.capacity == seen.count:
            return
        if last is None or not self._failed_lately(last, wish):
            self._scale(seen, wish)

    def _failed_lately(self, last: ActivityRecord, wish: _Wish) -> bool:
        """What has failed just now is not tried again at once; where there was no room, whether
        there is some is seen without trying."""
        failed = last.status is ActivityStatus.FAILED and last.wanted == wish.capacity
        again_at = last.started_at + to_micros(DEFAULT_COOLDOWN_S)
        lately = self._context.now() < again_at
        return failed and lately and not last.message.startswith(_NO_ROOM)

    def _asked(self, seen: Seen, asks: Sequence[Ask]) -> _Wish | None:
        """Out as far as any policy asks; in when all that scale in agree, and then the least."""
        if not asks:
            return None
        most = max(asks, key=lambda ask: ask.capacity)
        if most.capacity > seen.count:
            return self._out(seen, most)
        agreed = [ask for ask in asks if ask.scales_in]
        if not agreed or seen.target.suspended["DynamicScalingInSuspended"]:
            return None
        least = max(agreed, key=lambda ask: ask.capacity)
        if self._cools(seen.target.scaled_in_at, least.in_cooldown_s):
            return None
        return _Wish(max(least.capacity, seen.low), least.cause)

    def _out(self, seen: Seen, ask: Ask) -> _Wish | None:
        """The first instance waits for no cooldown: until it is there nobody is answered."""
        if seen.target.suspended["DynamicScalingOutSuspended"]:
            return None
        if seen.count and self._cools(seen.target.scaled_out_at, ask.out_cooldown_s):
            return None
        if seen.count >= seen.high:
            reason = {"Code": "AlreadyAtMaxCapacity", "MaxCapacity": seen.high}
            self._not_scaled(seen, ask.cause, reason)
            return None
        return _Wish(min(ask.capacity, seen.high), ask.cause)

    def _cools(self, since: int, cooldown_s: int) -> bool:
        return self._context.now() < since + to_micros(cooldown_s)

    def _not_scaled(self, seen: Seen, cause: str, reason: Mapping[str, object]) -> None:
        """On record once, until something else is."""
        with self._context.db.write() as connection:
            last = rows.latest_activity(connection, seen.target.resource_id)
            if last is not None and last.not_scaled == (reason,):
                return
            self._record(
                connection,
                seen,
                _Wish(seen.count, cause),
                status=ActivityStatus.UNFULFILLED,
                description="Attempting to scale due to alarm triggered",
                not_scaled=(reason,),
            )

    def _scale(self, seen: Seen, wish: _Wish) -> None:
        """Ask for the capacity if nothing has changed; as much of it as there is room for."""
        context, resource_id = self._context, seen.target.resource_id
        with context.db.write() as connection:
            endpoints.get_endpoint(connection, seen.endpoint.arn, for_update=True)
            if see(connection, rows.get_target(connection, resource_id)) != seen:
                return
            possible, problem = self._possible(connection, seen, wish)
            problem = problem or self._change(connection, seen, possible.capacity)
            if problem:
                last = rows.latest_activity(connection, resource_id)
                if last is None or (last.message, last.wanted) != (problem, wish.capacity):
                    status = ActivityStatus.FAILED
                    self._record(connection, seen, wish, status=status, message=problem)
                return
            self._record(connection, seen, possible, status=ActivityStatus.IN_PROGRESS)
            now = context.now()
            if possible.capacity > seen.count:
                rows.change_target(connection, resource_id, scaled_out_at=now)
            else:
                rows.change_target(connection, resource_id, scaled_in_at=now)
        context.changed()

    def _possible(self, connection: Connection, seen: Seen, wish: _Wish) -> tuple[_Wish, str]:
        """As much of a wish as there is room for, and why there is none of it."""
        if wish.capacity < seen.count:
            return wish, ""
        room = headroom(connection, self._room, seen.variant.memory_bytes)
        if room.instances == 0:
            return wish, f"{_NO_ROOM}{room.limit}."
        if seen.count + room.instances >= wish.capacity:
            return wish, ""
        capacity = seen.count + room.instances
        cause = f"{wish.cause}; of {wish.capacity} there is room for {capacity}: {room.limit}"
        return _Wish(capacity, cause), ""

    def _change(self, connection: Connection, seen: Seen, capacity: int) -> str:
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
        seen: Seen,
        wish: _Wish,
        *,
        status: ActivityStatus,
        message: str = "",
        description: str = "",
        not_scaled: tuple[Mapping[str, object], ...] = (),
    ) -> None:
        now = self._context.now()
        activity = ActivityRecord(
            id=self._context.ids(),
            resource_id=seen.target.resource_id,
            started_at=now,
            ended_at=None if status is ActivityStatus.IN_PROGRESS else now,
            status=status,
            wanted=wish.capacity,
            description=description or f"Setting desired instance count to {wish.capacity}.",
            cause=wish.cause,
            message=message,
            not_scaled=not_scaled,
        )
        rows.add_activity(connection, activity)
        rows.prune_activities(connection)


def _bounded(seen: Seen) -> _Wish | None:
    """Capacity that is out of bounds, because they or it were changed by hand or by the clock."""
    if seen.count < seen.low:
        return _Wish(seen.low, f"minimum capacity was set to {seen.low}")
    if seen.count > seen.high:
        return _Wish(seen.high, f"maximum capacity was set to {seen.high}")
    return None


def _end_of(activity: ActivityRecord, seen: Seen | None) -> tuple[ActivityStatus, str]:
    if seen is None:
        return ActivityStatus.UNFULFILLED, "The target is not registered now."
    if seen.count != activity.wanted:
        why = seen.endpoint.failure_reason or "The endpoint was changed meanwhile."
        return ActivityStatus.FAILED, why
    done = f"Successfully set desired instance count to {activity.wanted}."
    return ActivityStatus.SUCCESSFUL, f"{done} Change successfully fulfilled."
