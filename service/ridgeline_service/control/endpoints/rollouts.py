"""How an update's traffic goes over to the new deployment: a DeploymentConfig as values.

Traffic moves in steps. A step gives each variant of the new deployment a share of its traffic and
then rests; after the last one all traffic is there, and the old deployment stays on until the last
rest is over. Pure: knows no rows and no clock.

A rolling policy moves traffic in its batches, between two whole fleets: the old one is kept to the
end, so that a rollback needs no new replicas and is made at once, whatever
RollbackMaximumBatchSize says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ridgeline_service.errors import ValidationException
from ridgeline_service.store.records import Document, VariantSpec


@dataclass(frozen=True)
class CapacitySize:
    """A part of a variant: ``value`` of its instances, or per cent of it."""

    value: int
    percent: bool

    def share(self, variant: VariantSpec, times: int = 1) -> float:
        return min(1.0, times * self.value / self._whole(variant))

    def steps(self, variant: VariantSpec) -> int:
        """How many of these make the whole."""
        return math.ceil(self._whole(variant) / self.value)

    def _whole(self, variant: VariantSpec) -> int:
        return 100 if self.percent else variant.count

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> CapacitySize:
        return cls(raw["Value"], raw["Type"] == "CAPACITY_PERCENT")


@dataclass(frozen=True)
class Rollout:
    """``size`` of the first step, or of each if ``repeated``; None moves everything at once.
    A rest of ``wait_s`` follows every step but the last, ``termination_s`` that one. The update
    is rolled back when it takes longer than ``limit_s`` altogether."""

    size: CapacitySize | None = None
    repeated: bool = False
    wait_s: int = 0
    termination_s: int = 0
    limit_s: int | None = None

    @classmethod
    def of(cls, config: Document | None) -> Rollout:
        """From a DeploymentConfig that was checked; all at once where there is none."""
        config = config or {}
        if "RollingUpdatePolicy" in config:
            policy = config["RollingUpdatePolicy"]
            return cls(
                CapacitySize.of(policy["MaximumBatchSize"]),
                repeated=True,
                wait_s=policy["WaitIntervalInSeconds"],
                termination_s=policy["WaitIntervalInSeconds"],
                limit_s=policy.get("MaximumExecutionTimeoutInSeconds"),
            )
        if "BlueGreenUpdatePolicy" not in config:
            return cls()
        policy = config["BlueGreenUpdatePolicy"]
        routing = policy["TrafficRoutingConfiguration"]
        raw = routing.get(_SIZES.get(routing["Type"], ""))
        return cls(
            None if raw is None else CapacitySize.of(raw),
            repeated=routing["Type"] == "LINEAR",
            wait_s=routing["WaitIntervalInSeconds"],
            termination_s=policy.get("TerminationWaitInSeconds", 0),
            limit_s=policy.get("MaximumExecutionTimeoutInSeconds"),
        )

    def steps(self, variants: Sequence[VariantSpec]) -> int:
        """The step at which all traffic of every variant has moved."""
        if self.size is None:
            return 1
        if not self.repeated:
            return 2
        return max(self.size.steps(variant) for variant in variants)

    def share(self, variant: VariantSpec, step: int) -> float:
        """The part of the variant's traffic that has moved after so many steps."""
        if step == 0:
            return 0.0
        if self.size is None or (step > 1 and not self.repeated):
            return 1.0
        return self.size.share(variant, step)

    def shares(self, variants: Sequence[VariantSpec], step: int) -> Shares:
        """The shares of all variants of the new deployment."""
        named = {variant.name: self.share(variant, step) for variant in variants}
        weight = sum(variant.weight for variant in variants) or 1.0
        return Shares(named, sum(named[v.name] * v.weight for v in variants) / weight)

    def deadline(self, began: int) -> int | None:
        """When it is rolled back if it began then; both in microseconds."""
        return None if self.limit_s is None else began + self.limit_s * 1_000_000

    def rest_s(self, step: int, last: int) -> int:
        return self.termination_s if step >= last else self.wait_s

    def total_s(self, variants: Sequence[VariantSpec]) -> int:
        """Seconds that its rests take together."""
        last = self.steps(variants)
        return sum(self.rest_s(step, last) for step in range(1, last + 1))

    def advance(self, step: int, since: int, last: int, now: int) -> tuple[int, int, int | None]:
        """(step, since when, when its rest ends), all that is due taken; the end is None when the
        last step's rest is over. Times in microseconds; 0 is the step before the first."""
        while True:
            if step > 0:
                due = since + self.rest_s(step, last) * 1_000_000
                if now < due:
                    return step, since, due
                if step >= last:
                    return step, since, None
            step, since = step + 1, now


def rollback_alarms(config: Document | None) -> list[str]:
    """Names of the alarms that end an update whose new instances are ready when they ring."""
    raw = ((config or {}).get("AutoRollbackConfiguration") or {}).get("Alarms") or ()
    return [alarm.get("AlarmName", "") for alarm in raw]


@dataclass(frozen=True)
class Shares:
    """What part of each variant's traffic the new deployment gets, and of all traffic."""

    named: Mapping[str, float]
    overall: float

    def of(self, name: str) -> float:
        """A variant that the new deployment lacks gives its traffic up as all of them do."""
        return self.named.get(name, self.overall)

    @property
    def words(self) -> str:
        return f"{self.overall:.0%} of the traffic goes to the new deployment"


_SIZES = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}
# The least and the most per cent of a variant that a step may be.
_CANARY, _LINEAR, _BATCH, _ROLLBACK = (0, 50), (10, 50), (5, 50), (0, 100)


def check_deployment_config(config: Document | None, variants: Sequence[VariantSpec]) -> None:
    """Raises ValidationException for what contradicts itself."""
    if config is None:
        return
    policies = [name for name in ("BlueGreenUpdatePolicy", "RollingUpdatePolicy") if name in config]
    if len(policies) > 1:
        raise ValidationException(
            f"DeploymentConfig has {' and '.join(policies)}; only one update policy can be used."
        )
    if "BlueGreenUpdatePolicy" in config:
        _check_routing(config["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"], variants)
    if "RollingUpdatePolicy" in config:
        policy = config["RollingUpdatePolicy"]
        _check_size("MaximumBatchSize", policy["MaximumBatchSize"], _BATCH, variants)
        if "RollbackMaximumBatchSize" in policy:
            rollback = policy["RollbackMaximumBatchSize"]
            _check_size("RollbackMaximumBatchSize", rollback, _ROLLBACK, variants)
    _check_limit(Rollout.of(config), variants)


def _check_routing(routing: Mapping[str, Any], variants: Sequence[VariantSpec]) -> None:
    kind = routing["Type"]
    needed = _SIZES.get(kind)
    for name in _SIZES.values():
        if name == needed and name not in routing:
            raise ValidationException(
                f"TrafficRoutingConfiguration of Type {kind} lacks {name}.",
                hint="Say how much of the traffic a step moves.",
            )
        if name != needed and name in routing:
            raise ValidationException(
                f"TrafficRoutingConfiguration of Type {kind} cannot have {name}.",
                hint="Leave it out, or choose the Type that it is for.",
            )
    if needed is not None:
        bounds = _CANARY if kind == "CANARY" else _LINEAR
        _check_size(needed, routing[needed], bounds, variants)


def _check_size(
    name: str, raw: Mapping[str, Any], bounds: tuple[int, int], variants: Sequence[VariantSpec]
) -> None:
    least, most = bounds
    size = CapacitySize.of(raw)
    allowed = f"from {least}% to {most}%" if least else f"at most {most}%"
    if size.percent:
        if not least <= size.value <= most:
            raise ValidationException(
                f"{name} is {size.value}% of the capacity; it must be {allowed}."
            )
        return
    for variant in variants:
        if not least * variant.count <= 100 * size.value <= most * variant.count:
            many = "instance" if variant.count == 1 else "instances"
            raise ValidationException(
                f"{name} is {size.value} of the {variant.count} {many} of variant "
                f"{variant.name!r}; it must be {allowed} of them.",
                hint="Give it as CAPACITY_PERCENT, or give the variant more instances.",
            )


def _check_limit(rollout: Rollout, variants: Sequence[VariantSpec]) -> None:
    total = rollout.total_s(variants)
    if rollout.limit_s is not None and total >= rollout.limit_s:
        raise ValidationException(
            f"MaximumExecutionTimeoutInSeconds is {rollout.limit_s}, and the waits of the update "
            f"take {total} s together: it would always be rolled back.",
            hint="Raise it, or lower WaitIntervalInSeconds or TerminationWaitInSeconds.",
        )
