"""Values of a policy's metric, period by period, from the samples that CloudWatch shows."""

from __future__ import annotations

from ridgeline_service.control.scaling.tracking import LOW_S, Measure
from ridgeline_service.telemetry.lateness import lag_s
from ridgeline_service.telemetry.samples import SampleStore


def values_since(
    samples: SampleStore, measure: Measure, since: float, now: float
) -> list[float | None]:
    """One value a complete period, oldest first, of the last quarter of an hour and not before
    ``since``: what was measured at another capacity says nothing of this one. Times are seconds
    since the epoch."""
    period = measure.period_s
    end = (now - lag_s(measure.metric)) // period * period
    start = max(end - LOW_S, -(-since // period) * period)
    if start >= end:
        return []
    measured = samples.values(
        measure.metric, measure.statistic, start=start, end=end, period=period, unit=measure.unit
    )
    count = round((end - start) / period)
    return [measured.get(start + number * period, measure.absent) for number in range(count)]
