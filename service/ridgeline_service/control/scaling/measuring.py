"""Values of a policy's metric, period by period, from the samples that CloudWatch shows."""

from __future__ import annotations

from ridgeline_service.control.scaling.tracking import LOW_S, Measure
from ridgeline_service.telemetry.samples import Bucket, SampleStore


def values_since(
    samples: SampleStore, measure: Measure, since: float, now: float
) -> list[float | None]:
    """One value a complete period, oldest first, of the last quarter of an hour and not before
    ``since``: what was measured at another capacity says nothing of this one. Times are seconds
    since the epoch."""
    period = measure.period_s
    end = (now - measure.lag_s) // period * period
    start = max(end - LOW_S, -(-since // period) * period)
    if start >= end:
        return []
    merged: dict[float, Bucket] = {}
    for bucket in samples.read(
        measure.metric, start=start, end=end, period=period, unit=measure.unit
    ):
        before = merged.get(bucket.start)
        merged[bucket.start] = before.joined(bucket) if before else bucket
    found: list[float | None] = []
    for number in range(round((end - start) / period)):
        at = merged.get(start + number * period)
        found.append(measure.absent if at is None else at.statistic(measure.statistic))
    return found
