"""What the policies of a variant ask for, each by what it looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ridgeline_service.control.alarms.definition import definition_of
from ridgeline_service.control.alarms.measuring import newest_end, newest_points
from ridgeline_service.control.names import Clock
from ridgeline_service.control.scaling.measuring import values_since
from ridgeline_service.control.scaling.seen import Seen
from ridgeline_service.control.scaling.stepping import stepping_of
from ridgeline_service.control.scaling.tracking import tracking_of
from ridgeline_service.store.alarms import AlarmRecord, AlarmState
from ridgeline_service.store.scaling import PolicyKind, PolicyRecord
from ridgeline_service.telemetry.samples import SampleStore


@dataclass(frozen=True)
class Ask:
    """A capacity, and what asks for it; the present one where all is well. ``scales_in``: fewer
    instances need its consent."""

    capacity: int
    cause: str
    out_cooldown_s: int
    in_cooldown_s: int
    scales_in: bool = True


class Asks:
    """Reads the metrics that policies name."""

    def __init__(self, samples: SampleStore, clock: Clock) -> None:
        self._samples = samples
        self._clock = clock

    def of(
        self, seen: Seen, policies: Sequence[PolicyRecord], alarms: Sequence[AlarmRecord]
    ) -> list[Ask]:
        """A tracking policy always has its say, a step policy while an alarm sets it off."""
        return [ask for policy in policies for ask in self._of(seen, policy, alarms)]

    def _of(self, seen: Seen, policy: PolicyRecord, alarms: Sequence[AlarmRecord]) -> Iterator[Ask]:
        if policy.kind is PolicyKind.TRACKING:
            yield self._tracked(seen, policy)
            return
        for alarm in alarms:
            if policy.arn in alarm.set_off:
                yield self._stepped(seen, policy, alarm)

    def _tracked(self, seen: Seen, policy: PolicyRecord) -> Ask:
        tracking = tracking_of(policy.config, seen.endpoint.name, seen.variant.name)
        since = max(seen.endpoint.modified_at, seen.target.created_at) / 1e6
        values = values_since(self._samples, tracking.measure, since, self._clock())
        metric = tracking.measure.metric
        return Ask(
            capacity=tracking.wanted(values, seen.count),
            cause=(
                f"policy {policy.name} holds {metric.namespace}/{metric.name} at "
                f"{tracking.target:g} an instance"
            ),
            out_cooldown_s=tracking.out_cooldown_s,
            in_cooldown_s=tracking.in_cooldown_s,
            scales_in=tracking.scales_in,
        )

    def _stepped(self, seen: Seen, policy: PolicyRecord, alarm: AlarmRecord) -> Ask:
        """An alarm that rings counts as one whose metric is at its threshold or beyond, also where
        its state was set by hand."""
        stepping, definition = stepping_of(policy.config), definition_of(alarm.config)
        end = newest_end(definition, self._clock())
        points = newest_points(self._samples, definition, end)
        values = [point.value for point in points if point is not None][-definition.periods :]
        breach = stepping.aggregated(values) - definition.threshold if values else 0.0
        if alarm.state is AlarmState.ALARM:
            breach = max(0.0, breach) if definition.rises else min(0.0, breach)
        return Ask(
            capacity=stepping.wanted(breach, seen.count, rising=definition.rises),
            cause=f"alarm {alarm.name} in state {alarm.state} set off policy {policy.name}",
            out_cooldown_s=stepping.waits_s,
            in_cooldown_s=stepping.waits_s,
        )
