"""How many instances a variant of an endpoint has: a number, or one that follows its load.

Over UpdateEndpointWeightsAndCapacities and Application Auto Scaling, with a Ridgeline service or
with AWS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ridgeline._endpoints import describe
from ridgeline.errors import InvalidInput, NotFound, RidgelineError

if TYPE_CHECKING:
    from ridgeline.session import Session

POLICY = "ridgeline-scale"
CONCURRENT = "SageMakerVariantConcurrentRequestsPerModelHighResolution"
PER_MINUTE = "SageMakerVariantInvocationsPerInstance"

_DIMENSION = "sagemaker:variant:DesiredInstanceCount"
_SHOWN = 5


@dataclass(frozen=True)
class Scale:
    """A variant now: its instances, and the bounds and policies it is registered with."""

    variant: str
    instances: int
    wanted: int
    target: Mapping[str, Any] | None
    policies: Sequence[Mapping[str, Any]]
    activities: Sequence[Mapping[str, Any]]


class Scaler:
    """One variant of an endpoint; ``variant`` may be left out where there is only one. Raises
    NotFound, and InvalidInput before anything is changed."""

    def __init__(self, session: Session, endpoint: str, variant: str | None = None) -> None:
        self._session = session
        self._endpoint = endpoint
        names = [each["VariantName"] for each in self._variants()]
        if variant is None and len(names) != 1:
            raise InvalidInput(
                f"Endpoint {endpoint!r} has {len(names)} variants.",
                hint=f"Name one with --variant: {', '.join(names)}.",
            )
        self._name = names[0] if variant is None else variant
        if self._name not in names:
            raise NotFound(
                f"Endpoint {endpoint!r} has no variant {variant!r}.",
                hint=f"It has {', '.join(names)}.",
            )
        self._resource = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{endpoint}/variant/{self._name}",
            "ScalableDimension": _DIMENSION,
        }

    def look(self) -> Scale:
        """What there is now; activities newest first."""
        variant = next(each for each in self._variants() if each["VariantName"] == self._name)
        found = {name: self._resource[name] for name in ("ServiceNamespace", "ResourceId")}
        client = self._client
        with self._session.call():
            targets = client.describe_scalable_targets(
                ServiceNamespace="sagemaker", ResourceIds=[self._resource["ResourceId"]]
            )["ScalableTargets"]
            policies = client.describe_scaling_policies(**found)["ScalingPolicies"]
            activities = client.describe_scaling_activities(**found, MaxResults=_SHOWN)
        current = int(variant.get("CurrentInstanceCount", 0))
        return Scale(
            variant=self._name,
            instances=current,
            wanted=int(variant.get("DesiredInstanceCount", current)),
            target=targets[0] if targets else None,
            policies=policies,
            activities=activities["ScalingActivities"],
        )

    def fix(self, count: int) -> None:
        """So many instances, whatever the load: no target is left. A number that is refused
        leaves the target as it is."""
        wanted = {"VariantName": self._name, "DesiredInstanceCount": count}
        with self._session.call():
            self._session.sagemaker_client.update_endpoint_weights_and_capacities(
                EndpointName=self._endpoint, DesiredWeightsAndCapacities=[wanted]
            )
        self.stop()

    def follow(self, low: int, high: int, metric: str, target: float) -> None:
        """From ``low`` to ``high`` instances, so that ``metric`` stays at ``target`` an
        instance. What is refused leaves the bounds as they were."""
        if not (math.isfinite(target) and target > 0):
            raise InvalidInput(
                f"{target:g} is no target for {metric}.", hint="It is a number above 0, like 8."
            )
        before = self.look().target
        self._register(low, high)
        try:
            with self._session.call():
                self._client.put_scaling_policy(
                    **self._resource,
                    PolicyName=POLICY,
                    PolicyType="TargetTrackingScaling",
                    TargetTrackingScalingPolicyConfiguration={
                        "TargetValue": target,
                        "PredefinedMetricSpecification": {"PredefinedMetricType": metric},
                    },
                )
        except RidgelineError:
            # The refusal is what there is to report, whatever becomes of this.
            with suppress(RidgelineError):
                self._restore(before)
            raise

    def stop(self) -> bool:
        """Follow the load no longer; whether it did. Instances stay as many as they are."""
        if self.look().target is None:
            return False
        self._deregister()
        return True

    def _restore(self, before: Mapping[str, Any] | None) -> None:
        if before is None:
            self._deregister()
        else:
            self._register(before["MinCapacity"], before["MaxCapacity"])

    def _register(self, low: int, high: int) -> None:
        with self._session.call():
            self._client.register_scalable_target(
                **self._resource, MinCapacity=low, MaxCapacity=high
            )

    def _deregister(self) -> None:
        with self._session.call():
            self._client.deregister_scalable_target(**self._resource)

    @property
    def _client(self) -> Any:
        return self._session.scaling_client

    def _variants(self) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = describe(self._session, self._endpoint).get(
            "ProductionVariants", ()
        )
        return found
