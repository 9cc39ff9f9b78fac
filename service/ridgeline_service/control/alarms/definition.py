"""What an alarm watches, as values: one metric against one threshold."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ridgeline_service.errors import AwsError
from ridgeline_service.store.records import Document
from ridgeline_service.telemetry.samples import Metric, metric_of, percentile

_DAY_S = 86_400
_WEEK_S = 7 * _DAY_S
_HOUR_S = 3600
_SHORT_PERIODS = (10, 20, 30)

_NOT_HERE = {
    "Metrics": "metric math",
    "ThresholdMetricId": "anomaly detection",
    "EvaluationCriteria": "alarms over queries",
    "EvaluationWindow": "evaluation windows that do not slide",
    "EvaluationInterval": "intervals of evaluation of one's own",
    "WarmUpConfiguration": "warm-up of alarms",
    "ActionConfiguration": "settings of actions",
}

_COMPARISONS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "LessThanThreshold": (operator.lt, "less than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
}


class ValidationError(AwsError):
    """CloudWatch's answer to an alarm that cannot be."""

    code = "ValidationError"
    http_status = 400


class Missing(StrEnum):
    """What a period without a sample stands for: CloudWatch's TreatMissingData."""

    BREACHING = "breaching"
    NOT_BREACHING = "notBreaching"
    IGNORE = "ignore"
    MISSING = "missing"


@dataclass(frozen=True)
class Definition:
    """An alarm goes off when ``to_alarm`` of the newest ``periods`` values breach ``threshold``;
    each is ``statistic`` of ``period_s`` seconds."""

    metric: Metric
    statistic: str
    unit: str | None
    period_s: int
    periods: int
    to_alarm: int
    comparison: str
    threshold: float
    missing: Missing

    def breaches(self, value: float) -> bool:
        return _COMPARISONS[self.comparison][0](value, self.threshold)

    @property
    def rises(self) -> bool:
        """It is set off by large values."""
        return self.comparison.startswith("Greater")

    @property
    def words(self) -> str:
        """greater than, ..."""
        return _COMPARISONS[self.comparison][1]


def definition_of(config: Document) -> Definition:
    """From PutMetricAlarm's members. Raises ValidationError."""
    for name, what in _NOT_HERE.items():
        if config.get(name):
            raise ValidationError(
                f"{name} is not supported: {what} is not there.",
                hint="Name one metric by Namespace, MetricName and Dimensions, and a Threshold.",
            )
    for name in ("MetricName", "Namespace", "Period", "Threshold"):
        if config.get(name) is None:
            raise ValidationError(f"An alarm of a metric needs {name}.")
    names = [each["Name"] for each in config.get("Dimensions") or ()]
    if len(set(names)) < len(names):
        raise ValidationError(f"Dimensions: {', '.join(sorted(names))}: a name is given twice.")
    periods, period = config["EvaluationPeriods"], config["Period"]
    definition = Definition(
        metric=metric_of(config["Namespace"], config["MetricName"], config.get("Dimensions") or ()),
        statistic=_statistic(config),
        unit=config.get("Unit"),
        period_s=period,
        periods=periods,
        to_alarm=config.get("DatapointsToAlarm", periods),
        comparison=_comparison(config["ComparisonOperator"]),
        threshold=_finite(config["Threshold"]),
        missing=_missing(config.get("TreatMissingData", Missing.MISSING)),
    )
    _check_window(definition)
    return definition


def _statistic(config: Mapping[str, Any]) -> str:
    plain, extended = config.get("Statistic"), config.get("ExtendedStatistic")
    if (plain is None) == (extended is None):
        raise ValidationError("An alarm needs either Statistic or ExtendedStatistic.")
    if plain is not None:
        if "EvaluateLowSampleCountPercentile" in config:
            raise ValidationError("EvaluateLowSampleCountPercentile is for percentiles alone.")
        return str(plain)
    if percentile(str(extended)) is None:
        raise ValidationError(
            f"ExtendedStatistic {str(extended)[:60]!r} is not supported.",
            hint="Use a percentile such as p99.",
        )
    low = config.get("EvaluateLowSampleCountPercentile", "evaluate")
    if low not in ("evaluate", "ignore"):
        raise ValidationError(
            f"EvaluateLowSampleCountPercentile {str(low)[:60]!r} must be evaluate or ignore."
        )
    if low == "ignore":
        raise ValidationError(
            "EvaluateLowSampleCountPercentile ignore is not supported: a percentile of few samples "
            "counts as one of many.",
            hint="Leave it out.",
        )
    return str(extended)


def _comparison(name: str) -> str:
    if name not in _COMPARISONS:
        raise ValidationError(
            f"ComparisonOperator {name} is for anomaly detection, which is not there.",
            hint=f"Use one of {', '.join(_COMPARISONS)}.",
        )
    return name


def _finite(threshold: float) -> float:
    if not math.isfinite(threshold):
        raise ValidationError(f"Threshold is {threshold}: it must be a number.")
    return float(threshold)


def _missing(name: str) -> Missing:
    try:
        return Missing(name)
    except ValueError:
        raise ValidationError(
            f"TreatMissingData {name[:60]!r} must be one of {', '.join(Missing)}."
        ) from None


def _check_window(definition: Definition) -> None:
    period, periods = definition.period_s, definition.periods
    if period not in _SHORT_PERIODS and period % 60:
        raise ValidationError(
            f"Period is {period}: it must be {', '.join(map(str, _SHORT_PERIODS))} or a multiple "
            "of 60."
        )
    longest = _WEEK_S if period >= _HOUR_S else _DAY_S
    if period * periods > longest:
        raise ValidationError(
            f"{periods} periods of {period} s are {period * periods} s; an alarm may look at "
            f"{longest} s."
        )
    if definition.to_alarm > periods:
        raise ValidationError(
            f"DatapointsToAlarm is {definition.to_alarm}, and EvaluationPeriods {periods}: it must "
            "not be more."
        )
