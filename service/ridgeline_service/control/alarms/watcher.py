"""The watcher: gives every alarm the state that its metric is in, once a period.

What acts on alarms reads their state: the scaler, and the reconciler of an endpoint's updates.
"""

from __future__ import annotations

import logging

from ridgeline_service.control.alarms.definition import definition_of
from ridgeline_service.control.alarms.evaluating import Verdict, judge, reason_data
from ridgeline_service.control.alarms.measuring import newest_end, newest_points
from ridgeline_service.control.alarms.states import set_state
from ridgeline_service.control.context import Context
from ridgeline_service.store import alarms as rows
from ridgeline_service.store.alarms import AlarmRecord
from ridgeline_service.store.outage import log_failure
from ridgeline_service.telemetry.samples import SampleStore

log = logging.getLogger(__name__)


class AlarmWatcher:
    """``step`` is the whole of it; the control plane repeats it."""

    def __init__(self, context: Context, samples: SampleStore) -> None:
        self._context = context
        self._samples = samples
        self._judged: dict[str, tuple[int, float]] = {}

    def step(self) -> None:
        """Judge the alarms of which a period has ended since they were last judged, and those that
        were changed: so a state that SetAlarmState gave lasts until then. What fails for one does
        not stop the others."""
        with self._context.db.read() as connection:
            alarms = rows.all_alarms(connection)
        self._judged = {
            each.name: self._judged[each.name] for each in alarms if each.name in self._judged
        }
        # What takes longest, and is least urgent, comes last.
        for alarm in sorted(alarms, key=lambda each: int(each.config["Period"])):
            try:
                self._watch(alarm)
            except Exception as error:  # noqa: BLE001 - one alarm's bug must not stop the others
                log_failure(log, error, "alarm %s was not judged", alarm.name)

    def _watch(self, alarm: AlarmRecord) -> None:
        definition = definition_of(alarm.config)
        end = newest_end(definition, self._context.clock())
        judged = (alarm.configured_at, end)
        if self._judged.get(alarm.name) == judged:
            return
        points = newest_points(self._samples, definition, end)
        verdict = judge(definition, points)
        if verdict is not None and verdict.state is not alarm.state:
            data = reason_data(definition, verdict, self._context.clock())
            if not self._write(alarm, verdict, data):
                return
        self._judged[alarm.name] = judged

    def _write(self, alarm: AlarmRecord, verdict: Verdict, data: str) -> bool:
        """If it is as it was read: another control plane, or a user, may have been quicker."""
        context = self._context
        with context.db.write() as connection:
            if rows.get_alarm(connection, alarm.name, for_update=True) != alarm:
                return False
            set_state(context, connection, alarm, verdict.state, verdict.reason, data)
        context.changed()
        return True
