"""Step scaling: a policy's configuration as values, and the capacity that a breach asks for.

An alarm goes off, and how far its metric is beyond the threshold chooses the step. Pure: knows no
rows and no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from ridgeline_service.errors import ValidationException
from ridgeline_service.store.records import Document

DEFAULT_COOLDOWN_S = 300

_LEAST_COOLDOWN_S = 60


class Adjustment(StrEnum):
    """What the number of a step is."""

    CHANGE = "ChangeInCapacity"
    PERCENT = "PercentChangeInCapacity"
    EXACT = "ExactCapacity"


@dataclass(frozen=True)
class Step:
    """Holds where the metric less the threshold is from ``low`` to ``high``."""

    low: float
    high: float
    adjustment: int

    def holds(self, breach: float) -> bool:
        """The bound that is nearer to the threshold is part of the step, the other is not."""
        if self.high <= 0:
            return self.low < breach <= self.high
        return self.low <= breach < self.high


@dataclass(frozen=True)
class Stepping:
    """A checked StepScalingPolicyConfiguration."""

    adjustment: Adjustment
    steps: tuple[Step, ...]
    cooldown_s: int
    least_change: int
    aggregation: str

    @property
    def waits_s(self) -> int:
        """Least seconds between two changes in one direction: an alarm acts once a minute."""
        return max(self.cooldown_s, _LEAST_COOLDOWN_S)

    def wanted(self, breach: float, count: int, *, rising: bool) -> int:
        """The capacity that is asked for, where ``count`` is and the metric is ``breach`` above
        the threshold. At the threshold itself a ``rising`` metric takes the upper of two steps."""
        ordered = reversed(self.steps) if rising else self.steps
        step = next((each for each in ordered if each.holds(breach)), None)
        if step is None:
            return count
        match self.adjustment:
            case Adjustment.EXACT:
                return step.adjustment
            case Adjustment.CHANGE:
                return max(0, count + step.adjustment)
        return max(0, count + self._share(count * step.adjustment / 100))

    def _share(self, change: float) -> int:
        """Towards zero, but at least one instance, and at least ``least_change``."""
        if change == 0:
            return 0
        size = max(1, math.floor(abs(change)), self.least_change)
        return size if change > 0 else -size

    def aggregated(self, values: Sequence[float]) -> float:
        """One of those that the alarm was judged by."""
        match self.aggregation:
            case "Minimum":
                return min(values)
            case "Maximum":
                return max(values)
        return sum(values) / len(values)


def stepping_of(config: Document) -> Stepping:
    """Raises ValidationException for what contradicts itself."""
    if "AdjustmentType" not in config:
        raise ValidationException("StepScalingPolicyConfiguration needs an AdjustmentType.")
    adjustment = Adjustment(config["AdjustmentType"])
    raw = config.get("StepAdjustments") or ()
    if not raw:
        raise ValidationException("StepScalingPolicyConfiguration needs StepAdjustments.")
    least = config.get("MinAdjustmentMagnitude", 0)
    if least and adjustment is not Adjustment.PERCENT:
        raise ValidationException(
            f"MinAdjustmentMagnitude is for {Adjustment.PERCENT}, and the AdjustmentType is "
            f"{adjustment}."
        )
    if least < 0:
        raise ValidationException(f"MinAdjustmentMagnitude is {least}: instances, from 1.")
    cooldown = config.get("Cooldown", DEFAULT_COOLDOWN_S)
    if cooldown < 0:
        raise ValidationException(f"Cooldown is {cooldown}: seconds, from 0.")
    steps = tuple(sorted((_step(each, adjustment) for each in raw), key=lambda step: step.low))
    _check_steps(steps)
    return Stepping(
        adjustment, steps, cooldown, least, config.get("MetricAggregationType", "Average")
    )


def _step(raw: Mapping[str, Any], adjustment: Adjustment) -> Step:
    low = raw.get("MetricIntervalLowerBound", -math.inf)
    high = raw.get("MetricIntervalUpperBound", math.inf)
    if math.isinf(low) and math.isinf(high):
        raise ValidationException(
            "A step needs a MetricIntervalLowerBound, a MetricIntervalUpperBound or both."
        )
    if not low < high:
        raise ValidationException(
            f"A step from {low:g} to {high:g}: MetricIntervalLowerBound must be less than "
            "MetricIntervalUpperBound."
        )
    if adjustment is Adjustment.EXACT and raw["ScalingAdjustment"] < 0:
        raise ValidationException(
            f"ScalingAdjustment is {raw['ScalingAdjustment']}: an ExactCapacity is 0 or more."
        )
    return Step(low, high, raw["ScalingAdjustment"])


def _check_steps(steps: Sequence[Step]) -> None:
    """As AWS does: no gaps, no overlaps, no end where a breach could lie beyond it, and bounds
    around the threshold."""
    for one, other in pairwise(steps):
        if one.high > other.low:
            raise ValidationException(
                f"The steps from {one.low:g} to {one.high:g} and from {other.low:g} to "
                f"{other.high:g} overlap."
            )
        if one.high < other.low:
            raise ValidationException(
                f"There is a gap between the steps, from {one.high:g} to {other.low:g}."
            )
    low, high = steps[0].low, steps[-1].high
    if low < 0 and not math.isinf(low):
        raise ValidationException(
            f"The lowest step begins at {low:g}, below the threshold: leave its "
            "MetricIntervalLowerBound out, so that it has no end."
        )
    if high > 0 and not math.isinf(high):
        raise ValidationException(
            f"The highest step ends at {high:g}, above the threshold: leave its "
            "MetricIntervalUpperBound out, so that it has no end."
        )
