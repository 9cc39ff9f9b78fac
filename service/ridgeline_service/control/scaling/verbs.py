"""The verbs of Application Auto Scaling: scalable targets, their policies, scaling activities.

They write what is wanted; the scaler measures and acts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.exc import IntegrityError

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.capacities import least_instances
from ridgeline_service.control.listing import with_token
from ridgeline_service.control.names import to_datetime
from ridgeline_service.control.scaling.pages import page_of, page_of_named, resource_filter
from ridgeline_service.control.scaling.resources import (
    DIMENSION,
    NAMESPACE,
    ObjectNotFound,
    check_dimension,
    named_in,
    registered,
    variant_of,
)
from ridgeline_service.control.scaling.stepping import stepping_of
from ridgeline_service.control.scaling.tracking import tracking_of
from ridgeline_service.control.tags import MAX_TAGS
from ridgeline_service.errors import AwsError, ValidationException
from ridgeline_service.store import journal
from ridgeline_service.store import scaling as rows
from ridgeline_service.store.alarms import AlarmRecord, all_alarms
from ridgeline_service.store.records import DeploymentRecord
from ridgeline_service.store.scaling import (
    ActivityRecord,
    PolicyKind,
    PolicyRecord,
    TargetRecord,
)

_SUSPENDABLE = (
    "DynamicScalingInSuspended",
    "DynamicScalingOutSuspended",
    "ScheduledScalingSuspended",
)


_CONFIGURATIONS = {
    PolicyKind.TRACKING: "TargetTrackingScalingPolicyConfiguration",
    PolicyKind.STEPS: "StepScalingPolicyConfiguration",
}


class ResourceNotFound(AwsError):
    """Of the tag operations, which name a target by its ARN."""

    code = "ResourceNotFoundException"
    http_status = 400


class TooManyTags(AwsError):
    code = "TooManyTagsException"
    http_status = 400


class Scaling:
    """One method an operation."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def register(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A new target, or changes of one: what is left out stays as it is."""
        check_dimension(request)
        _check_tags(request.get("Tags", {}))
        try:
            return self._register(request)
        except IntegrityError:
            return self._register(request)  # another call made it in between: this one changes it

    def _register(self, request: Mapping[str, Any]) -> dict[str, Any]:
        context, resource_id = self._context, request["ResourceId"]
        with context.db.write() as connection:
            endpoint, deployment = variant_of(context, connection, resource_id)
            former = rows.get_target(connection, resource_id, for_update=True)
            low, high = _capacities(request, former, deployment)
            suspended = {**_suspended(former), **request.get("SuspendedState", {})}
            role_arn = request.get("RoleARN") or (former.role_arn if former else self._role)
            if former is not None:
                rows.change_target(
                    connection,
                    resource_id,
                    min_capacity=low,
                    max_capacity=high,
                    role_arn=role_arn,
                    suspended=suspended,
                )
                arn = former.arn
            else:
                arn = self._arn("application-autoscaling", f"scalable-target/{context.ids()}")
                target = TargetRecord(
                    resource_id=resource_id,
                    arn=arn,
                    endpoint_arn=endpoint.arn,
                    variant=named_in(resource_id)[1],
                    created_at=context.now(),
                    min_capacity=low,
                    max_capacity=high,
                    role_arn=role_arn,
                    suspended=suspended,
                )
                rows.add_target(connection, target)
            journal.put_tags(connection, arn, request.get("Tags", {}))
            message = f"{resource_id} scales from {low} to {high}."
            context.event(connection, endpoint.arn, "ScalableTarget", message=message)
        return {"ScalableTargetARN": arn}

    def describe_targets(self, request: Mapping[str, Any]) -> dict[str, Any]:
        check_dimension(request)
        wanted = request.get("ResourceIds")
        with self._context.db.read() as connection:
            found = rows.all_targets(connection)
        found = [each for each in found if not wanted or each.resource_id in wanted]
        page, token = page_of(found, request, "targets", key=lambda target: (target.resource_id,))
        return with_token({"ScalableTargets": [_target(each) for each in page]}, token)

    def deregister(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Its policies go with it; the instances stay as many as they are."""
        check_dimension(request)
        with self._context.db.write() as connection:
            target = registered(connection, request["ResourceId"])
            rows.delete_target(connection, target.resource_id)
            journal.remove_all_tags(connection, target.arn)
            message = f"{target.resource_id} scales no longer."
            self._context.event(connection, target.endpoint_arn, "ScalableTarget", message=message)
        return {}

    def put_policy(self, request: Mapping[str, Any]) -> dict[str, Any]:
        check_dimension(request)
        kind, config = _configuration(request)
        context, resource_id, name = self._context, request["ResourceId"], request["PolicyName"]
        with context.db.write() as connection:
            target = registered(connection, resource_id)
            former = rows.get_policy(connection, resource_id, name)
            if former is not None:
                _check_kind(former, kind, all_alarms(connection))
            arn = former.arn if former else self._policy_arn(resource_id, name)
            policy = PolicyRecord(arn, name, resource_id, context.now(), kind, config)
            rows.put_policy(connection, policy)
            message = f"{name} ({kind}) scales {resource_id}."
            context.event(connection, target.endpoint_arn, "ScalingPolicy", message=message)
            alarms = _alarms_of(policy, all_alarms(connection))
        return {"PolicyARN": arn, "Alarms": alarms}

    def describe_policies(self, request: Mapping[str, Any]) -> dict[str, Any]:
        check_dimension(request)
        with self._context.db.read() as connection:
            found = rows.all_policies(connection)
            alarms = all_alarms(connection)
        page, token = page_of_named(found, request, "PolicyNames")
        return with_token({"ScalingPolicies": [_policy(each, alarms) for each in page]}, token)

    def delete_policy(self, request: Mapping[str, Any]) -> dict[str, Any]:
        check_dimension(request)
        resource_id, name = request["ResourceId"], request["PolicyName"]
        with self._context.db.write() as connection:
            policy = rows.get_policy(connection, resource_id, name)
            if policy is None:
                raise ObjectNotFound(
                    f"No scaling policy found for service namespace: {NAMESPACE}, resource ID: "
                    f"{resource_id[:200]}, scalable dimension: {DIMENSION}, policy name: "
                    f"{name[:200]}."
                )
            rows.delete_policy(connection, policy.arn)
        return {}

    def describe_activities(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Newest first."""
        check_dimension(request)
        resource_id = resource_filter(request)
        with self._context.db.read() as connection:
            found = rows.activities(
                connection,
                limit=rows.ACTIVITIES_KEPT,
                resource_ids=None if resource_id is None else (resource_id,),
            )
        if not request.get("IncludeNotScaledActivities"):
            found = [each for each in found if not each.not_scaled]
        page, token = page_of(
            found,
            request,
            "activities",
            key=lambda each: (each.started_at, each.id),
            descending=True,
        )
        return with_token({"ScalingActivities": [_activity(each) for each in page]}, token)

    def tag(self, request: Mapping[str, Any]) -> dict[str, Any]:
        new = request["Tags"]
        _check_tags(new)
        with self._context.db.write() as connection:
            journal.lock_tags(connection, request["ResourceARN"])
            arn = self._tagged(connection, request)
            if len(journal.put_tags(connection, arn, new)) > MAX_TAGS:
                raise TooManyTags(f"A scalable target has at most {MAX_TAGS} tags.")
        return {}

    def untag(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.write() as connection:
            journal.remove_tags(connection, self._tagged(connection, request), request["TagKeys"])
        return {}

    def list_tags(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.read() as connection:
            return {"Tags": journal.tags_of(connection, self._tagged(connection, request))}

    def _tagged(self, connection: Any, request: Mapping[str, Any]) -> str:
        arn: str = request["ResourceARN"]
        if rows.target_of_arn(connection, arn) is None:
            raise ResourceNotFound(f"No scalable target has the ARN {arn[:300]!r}.")
        return arn

    @property
    def _role(self) -> str:
        """What AWS fills in; nothing here assumes a role."""
        return (
            f"arn:aws:iam::{self._context.settings.account_id}:role/aws-service-role/"
            "sagemaker.application-autoscaling.amazonaws.com/"
            "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
        )

    def _policy_arn(self, resource_id: str, name: str) -> str:
        place = f"scalingPolicy:{self._context.ids()}:resource/{NAMESPACE}/{resource_id}"
        settings = self._context.settings
        where = f"{settings.region}:{settings.account_id}"
        return f"arn:aws:autoscaling:{where}:{place}:policyName/{name}"

    def _arn(self, service: str, resource: str) -> str:
        settings = self._context.settings
        return f"arn:aws:{service}:{settings.region}:{settings.account_id}:{resource}"


def _capacities(
    request: Mapping[str, Any], former: TargetRecord | None, deployment: DeploymentRecord
) -> tuple[int, int]:
    low = request.get("MinCapacity", former.min_capacity if former else None)
    high = request.get("MaxCapacity", former.max_capacity if former else None)
    if low is None or high is None:
        raise ValidationException(
            "MinCapacity and MaxCapacity are required to register a new scalable target."
        )
    least = least_instances(deployment)
    if low < least:
        raise ValidationException(
            f"MinCapacity is {low}: it must be {least} or more.",
            hint="Only an endpoint with an AsyncInferenceConfig may be without an instance."
            if least
            else "",
        )
    if low > high:
        raise ValidationException(
            f"Minimum capacity {low} cannot be greater than maximum capacity {high}."
        )
    return int(low), int(high)


def _check_tags(tags: Mapping[str, str]) -> None:
    if len(tags) > MAX_TAGS:
        raise TooManyTags(f"A scalable target has at most {MAX_TAGS} tags.")
    for key in tags:
        if key.lower().startswith("aws:"):
            raise ValidationException(f"Tag key {key[:128]!r}: those under aws: are AWS's own.")


def _suspended(former: TargetRecord | None) -> dict[str, Any]:
    return dict(former.suspended) if former else dict.fromkeys(_SUSPENDABLE, False)


def _configuration(request: Mapping[str, Any]) -> tuple[PolicyKind, Mapping[str, Any]]:
    """Of the kind of policy that is asked for, checked. Raises ValidationException."""
    asked = request.get("PolicyType", PolicyKind.STEPS)
    if asked not in _CONFIGURATIONS:
        raise ValidationException(
            f"PolicyType {asked} is not supported by this service.",
            hint=f"Use {' or '.join(_CONFIGURATIONS)}.",
        )
    kind = PolicyKind(asked)
    config = request.get(_CONFIGURATIONS[kind])
    if config is None:
        raise ValidationException(f"PolicyType {kind} needs a {_CONFIGURATIONS[kind]}.")
    for other in (*_CONFIGURATIONS.values(), "PredictiveScalingPolicyConfiguration"):
        if other in request and other != _CONFIGURATIONS[kind]:
            raise ValidationException(f"{other} is of another PolicyType: leave it out.")
    if kind is PolicyKind.STEPS:
        stepping_of(config)
    else:
        tracking_of(config, *named_in(request["ResourceId"]))
    return kind, dict(config)


def _check_kind(former: PolicyRecord, kind: PolicyKind, alarms: Iterable[AlarmRecord]) -> None:
    """Raises ValidationException where alarms would act on a policy that hears none."""
    if kind is not former.kind and (named := _alarms_of(former, alarms)):
        raise ValidationException(
            f"Policy {former.name} is {former.kind.value}, and alarm {named[0]['AlarmName']!r} "
            f"sets it off: it cannot become {kind.value}.",
            hint="Delete the policy or the alarm first.",
        )


def _alarms_of(policy: PolicyRecord, alarms: Iterable[AlarmRecord]) -> list[dict[str, str]]:
    """Those that have the policy among their actions."""
    return [
        {"AlarmName": alarm.name, "AlarmARN": alarm.arn}
        for alarm in alarms
        if policy.arn in alarm.actions
    ]


def _target(record: TargetRecord) -> dict[str, Any]:
    return {
        "ServiceNamespace": NAMESPACE,
        "ResourceId": record.resource_id,
        "ScalableDimension": DIMENSION,
        "MinCapacity": record.min_capacity,
        "MaxCapacity": record.max_capacity,
        "RoleARN": record.role_arn,
        "CreationTime": to_datetime(record.created_at),
        "SuspendedState": dict(record.suspended),
        "ScalableTargetARN": record.arn,
    }


def _policy(record: PolicyRecord, alarms: Iterable[AlarmRecord]) -> dict[str, Any]:
    return {
        "PolicyARN": record.arn,
        "PolicyName": record.name,
        "ServiceNamespace": NAMESPACE,
        "ResourceId": record.resource_id,
        "ScalableDimension": DIMENSION,
        "PolicyType": record.kind.value,
        _CONFIGURATIONS[record.kind]: dict(record.config),
        "Alarms": _alarms_of(record, alarms),
        "CreationTime": to_datetime(record.created_at),
    }


def _activity(record: ActivityRecord) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "ActivityId": record.id,
        "ServiceNamespace": NAMESPACE,
        "ResourceId": record.resource_id,
        "ScalableDimension": DIMENSION,
        "Description": record.description,
        "Cause": record.cause,
        "StartTime": to_datetime(record.started_at),
        "StatusCode": record.status.value,
        "StatusMessage": record.message,
    }
    if record.ended_at is not None:
        shown["EndTime"] = to_datetime(record.ended_at)
    if record.not_scaled:
        shown["NotScaledReasons"] = [dict(each) for each in record.not_scaled]
    return shown
