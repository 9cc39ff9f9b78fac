"""Inference recommendations jobs: how their requests are checked and how their rows are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ridgeline_service.control.command_jobs.benchmarks import percentile_of
from ridgeline_service.control.command_jobs.locations import check_object
from ridgeline_service.control.command_jobs.verbs import CommandJobVerbs
from ridgeline_service.control.listing import DEFAULT_PAGE
from ridgeline_service.control.names import MODEL, to_datetime
from ridgeline_service.errors import ValidationException
from ridgeline_service.placement.profiles import is_instance_type, nearest_types
from ridgeline_service.store.command_jobs import CommandJob, CommandKind
from ridgeline_service.store.resources import MODELS


class RecommendationsJobs(CommandJobVerbs):
    """The inference recommendations verbs of the SageMaker API, answered by the planner of
    simulated Neuron instances."""

    kind = CommandKind.RECOMMENDATIONS
    waiting = "PENDING"
    member = "JobName"
    arn = "JobArn"
    entries = "InferenceRecommendationsJobs"

    def check(self, request: Mapping[str, Any]) -> None:
        config = request["InputConfig"]
        if "ModelPackageVersionArn" in config:
            raise ValidationException(
                "InputConfig.ModelPackageVersionArn: model packages have no recommendations here.",
                hint="Give a ModelName.",
            )
        name = config.get("ModelName")
        nearest = (config.get("ContainerConfig") or {}).get("NearestModelName")
        if name is None and nearest is None:
            raise ValidationException("InputConfig names no model. Give a ModelName.")
        if name is not None:
            with self._context.db.read() as connection:
                if MODELS.get(connection, self._context.arns.of(MODEL, name)) is None:
                    raise ValidationException(f"Could not find model {name!r}.")
        for threshold in (request.get("StoppingConditions") or {}).get(
            "ModelLatencyThresholds"
        ) or ():
            try:
                percentile_of(threshold.get("Percentile", "P95"))
            except ValueError:
                raise ValidationException(
                    f"StoppingConditions: {threshold['Percentile']!r} is no percentile.",
                    hint="Like P95.",
                ) from None
        if request["JobType"] == "Advanced" and not config.get("EndpointConfigurations"):
            raise ValidationException(
                "An Advanced job needs InputConfig.EndpointConfigurations.",
                hint="Name instance types in it, or make the JobType Default.",
            )
        _check_instance_types(config)
        payload = (config.get("ContainerConfig") or {}).get("PayloadConfig") or {}
        if payload.get("SamplePayloadUrl"):
            check_object("PayloadConfig.SamplePayloadUrl", payload["SamplePayloadUrl"])

    def shown(self, job: CommandJob) -> dict[str, Any]:
        found = {**job.request, **self._common(job)}
        if job.result.get("recommendations"):
            found["InferenceRecommendations"] = [
                _recommendation(one, job) for one in job.result["recommendations"]
            ]
        return found

    def summary(self, job: CommandJob) -> dict[str, Any]:
        asked = job.request["InputConfig"]
        payload = (asked.get("ContainerConfig") or {}).get("PayloadConfig") or {}
        more = {
            "ModelName": asked.get("ModelName"),
            "SamplePayloadUrl": payload.get("SamplePayloadUrl"),
        }
        return {
            "JobDescription": job.request.get("JobDescription", ""),
            "JobType": job.request["JobType"],
            "RoleArn": job.request["RoleArn"],
            **self._common(job),
            **{name: value for name, value in more.items() if value},
        }

    def list_steps(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One step for each instance type that was looked at. A token is the place of a step."""
        with self._context.db.read() as connection:
            job = self.find(connection, request)
        steps = [_step(one, job) for one in job.result.get("steps", ())]
        status, token = request.get("Status"), request.get("NextToken") or "0"
        if not token.isdecimal():
            raise ValidationException(f"Invalid NextToken: {token!r}.")
        begin = int(token)
        wanted = [one for one in steps if status in (None, one["Status"])]
        end = begin + request.get("MaxResults", DEFAULT_PAGE)
        more = {"NextToken": str(end)} if end < len(wanted) else {}
        return {"Steps": wanted[begin:end], **more}

    def _common(self, job: CommandJob) -> dict[str, Any]:
        found = {
            "JobName": job.name,
            "JobArn": job.arn,
            "Status": job.status,
            "CreationTime": to_datetime(job.created_at),
            "LastModifiedTime": to_datetime(job.modified_at),
        }
        if job.ended_at is not None:
            found["CompletionTime"] = to_datetime(job.ended_at)
        if job.failure_reason:
            found["FailureReason"] = job.failure_reason
        return found


def _check_instance_types(config: Mapping[str, Any]) -> None:
    """In SageMaker's words, but with the nearest types in place of hundreds."""
    wanted = [
        (f"endpointConfigurations.{place}.member.instanceType", one.get("InstanceType"))
        for place, one in enumerate(config.get("EndpointConfigurations") or (), start=1)
    ]
    supported = (config.get("ContainerConfig") or {}).get("SupportedInstanceTypes") or ()
    wanted += [
        (f"containerConfig.supportedInstanceTypes.{place}.member", name)
        for place, name in enumerate(supported, start=1)
    ]
    faults = [
        f"Value '{name[:100]}' at 'inputConfig.{where}' failed to satisfy constraint: Member must "
        f"satisfy enum value set: [{', '.join(nearest_types(name))}, ...]"
        for where, name in wanted
        if name and not is_instance_type(name)
    ]
    if faults:
        many = "s" if len(faults) > 1 else ""
        raise ValidationException(
            f"{len(faults)} validation error{many} detected: {'; '.join(faults[:10])}"
        )


def _recommendation(one: Mapping[str, Any], job: CommandJob) -> dict[str, Any]:
    return {
        "RecommendationId": f"{job.name}/{one['id']}",
        "Metrics": one["metrics"],
        "EndpointConfiguration": _endpoint(one, job),
        "ModelConfiguration": _model(one),
        **_times(one),
    }


def _step(one: Mapping[str, Any], job: CommandJob) -> dict[str, Any]:
    benchmark: dict[str, Any] = {
        "EndpointConfiguration": _endpoint(one, job),
        "ModelConfiguration": _model(one),
        **_times(one),
    }
    if one["failure"]:
        benchmark["FailureReason"] = one["failure"]
    else:
        benchmark["Metrics"] = one["metrics"]
    return {
        "StepType": "BENCHMARK",
        "JobName": job.name,
        "Status": "FAILED" if one["failure"] else "COMPLETED",
        "InferenceBenchmark": benchmark,
    }


def _model(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"EnvironmentParameters": one["environment"]} if one["environment"] else {}


def _times(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "InvocationStartTime": to_datetime(one["started"]),
        "InvocationEndTime": to_datetime(one["ended"]),
    }


def _endpoint(one: Mapping[str, Any], job: CommandJob) -> dict[str, Any]:
    return {
        "EndpointName": f"sm-{job.id}-{one['id']}",
        "VariantName": f"variant-{one['id']}",
        **({"InstanceType": one["instance_type"]} if one["instance_type"] else {}),
        "InitialInstanceCount": one["instances"],
    }
