"""Target tracking: a policy's configuration as values, and the capacity that its metric asks for.

As in AWS, three periods above the target scale out, by the metric's proportion to the target, and
a quarter of an hour below nine tenths of it scales in. Pure: knows no rows and no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ridgeline_service.errors import ValidationException
from ridgeline_service.store.records import Document
from ridgeline_service.telemetry.lateness import ENDPOINTS, SAMPLED
from ridgeline_service.telemetry.samples import Metric, metric_of

HIGH_PERIODS = 3
LOW_S = 900
LOW_SHARE = 0.9
DEFAULT_COOLDOWN_S = 300
"""Application Auto Scaling's own for SageMaker's variants."""

_MINUTE_S = 60
_SAMPLED_S = 10
_ROUNDING = 1e-9

_INVOCATIONS = "SageMakerVariantInvocationsPerInstance"
_CONCURRENCY = "SageMakerVariantConcurrentRequestsPerModelHighResolution"

_BY_MINUTE = frozenset({"Invocations", "InvocationsPerInstance"})
"""These and what is sampled: an endpoint that nobody asks writes none of it. They are 0 then. To
CloudWatch such periods would say nothing, and an endpoint without traffic would keep its
instances."""


@dataclass(frozen=True)
class Measure:
    """What a policy looks at: one value every ``period_s`` seconds. ``absent`` stands for a period
    without a sample; None: that says nothing."""

    metric: Metric
    statistic: str
    period_s: int = _MINUTE_S
    absent: float | None = None
    unit: str | None = None

    @property
    def periods(self) -> int:
        """As many as are ever looked at."""
        return LOW_S // self.period_s


@dataclass(frozen=True)
class Tracking:
    """A checked TargetTrackingScalingPolicyConfiguration of one variant."""

    target: float
    measure: Measure
    out_cooldown_s: int
    in_cooldown_s: int
    scales_in: bool

    def wanted(self, values: Sequence[float | None], count: int) -> int:
        """The capacity that is asked for, where ``count`` is; the same for no change. ``values``
        are the newest periods, oldest first, all of them measured at that count.

        A metric of an instance is in proportion to the load on it: at ``target`` each, the load
        needs this many. Without an instance the metric is that of all the load, and any wakes one.
        """
        if count == 0 and values and values[-1]:
            return self._needed(values[-1], count)
        recent = [value for value in values[-HIGH_PERIODS:] if value is not None]
        if len(recent) == HIGH_PERIODS and min(recent) > self.target:
            return max(count, self._needed(recent[-1], count))
        window = [value for value in values if value is not None]
        if len(window) < self.measure.periods or max(window) > LOW_SHARE * self.target:
            return count
        return min(count, self._needed(max(window), count))

    def _needed(self, value: float, count: int) -> int:
        return math.ceil(max(1, count) * value / self.target - _ROUNDING)


def tracking_of(config: Document, endpoint: str, variant: str) -> Tracking:
    """Raises ValidationException for what cannot be followed here."""
    target = config["TargetValue"]
    if not (math.isfinite(target) and target > 0):
        raise ValidationException(f"TargetValue is {target:g}: it must be greater than 0.")
    cooldowns = {}
    for name in ("ScaleOutCooldown", "ScaleInCooldown"):
        cooldowns[name] = config.get(name, DEFAULT_COOLDOWN_S)
        if cooldowns[name] < 0:
            raise ValidationException(f"{name} is {cooldowns[name]}: seconds, from 0.")
    return Tracking(
        target=target,
        measure=_measure(config, endpoint, variant),
        out_cooldown_s=cooldowns["ScaleOutCooldown"],
        in_cooldown_s=cooldowns["ScaleInCooldown"],
        scales_in=not config.get("DisableScaleIn", False),
    )


def _measure(config: Document, endpoint: str, variant: str) -> Measure:
    predefined = config.get("PredefinedMetricSpecification")
    customized = config.get("CustomizedMetricSpecification")
    if (predefined is None) == (customized is None):
        raise ValidationException(
            "Give either PredefinedMetricSpecification or CustomizedMetricSpecification."
        )
    if predefined is not None:
        return _predefined(predefined, endpoint, variant)
    assert customized is not None
    return _customized(customized)


def _predefined(raw: Mapping[str, Any], endpoint: str, variant: str) -> Measure:
    if "ResourceLabel" in raw:
        raise ValidationException("ResourceLabel is for load balancers: variants have none.")
    dimensions = (("EndpointName", endpoint), ("VariantName", variant))
    match raw["PredefinedMetricType"]:
        case type_ if type_ == _INVOCATIONS:
            return _measured(Metric(ENDPOINTS, "InvocationsPerInstance", dimensions), "Sum")
        case type_ if type_ == _CONCURRENCY:
            metric = Metric(ENDPOINTS, "ConcurrentRequestsPerModel", dimensions)
            return _measured(metric, "Average")
        case other:
            raise ValidationException(
                f"PredefinedMetricType {str(other)[:100]!r} is not one of a variant's instances.",
                hint=f"Use {_INVOCATIONS} or {_CONCURRENCY}, or CustomizedMetricSpecification.",
            )


def _customized(raw: Mapping[str, Any]) -> Measure:
    if raw.get("Metrics"):
        raise ValidationException(
            "CustomizedMetricSpecification.Metrics (metric math) is not supported: name one metric "
            "by MetricName, Namespace, Dimensions and Statistic."
        )
    for name in ("MetricName", "Namespace", "Statistic"):
        if not raw.get(name):
            raise ValidationException(f"CustomizedMetricSpecification lacks {name}.")
    metric = metric_of(raw["Namespace"], raw["MetricName"], raw.get("Dimensions") or ())
    return _measured(metric, raw["Statistic"], raw.get("Unit"))


def _measured(metric: Metric, statistic: str, unit: str | None = None) -> Measure:
    of_endpoints = metric.namespace == ENDPOINTS
    if of_endpoints and metric.name in SAMPLED:
        return Measure(metric, statistic, _SAMPLED_S, absent=0.0, unit=unit)
    counted = of_endpoints and metric.name in _BY_MINUTE
    return Measure(metric, statistic, absent=0.0 if counted else None, unit=unit)
