"""The newest values of what an alarm watches, from the samples that CloudWatch shows."""

from __future__ import annotations

from ridgeline_service.control.alarms.definition import Definition
from ridgeline_service.control.alarms.evaluating import EXTRA_PERIODS, Point
from ridgeline_service.telemetry.lateness import lag_s
from ridgeline_service.telemetry.samples import SampleStore

_MINUTE_S = 60
_HOUR_S = 3600


def newest_end(definition: Definition, now: float) -> float:
    """When the newest period ended whose samples are all there: periods longer than a minute move
    on with every minute, those longer than an hour every ten. Times are seconds since the epoch."""
    period = definition.period_s
    step = min(period, _MINUTE_S) if period <= _HOUR_S else 10 * _MINUTE_S
    return (now - lag_s(definition.metric)) // step * step


def newest_points(samples: SampleStore, definition: Definition, end: float) -> list[Point | None]:
    """As many periods before ``end`` as are judged by, oldest first; None where one is empty."""
    count = definition.periods + EXTRA_PERIODS
    start = end - count * definition.period_s
    values = samples.values(
        definition.metric,
        definition.statistic,
        start=start,
        end=end,
        period=definition.period_s,
        unit=definition.unit,
        origin=start,
    )
    begins = (start + number * definition.period_s for number in range(count))
    return [Point(at, values[at]) if at in values else None for at in begins]
