"""A control plane in memory: the contract that the API's tests call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from ridgeline.errors import AlreadyExists, NotFound
from ridgeline_service.errors import ValidationException

AT = datetime(2026, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)


def arn(kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:us-east-1:123456789012:{kind}/{name.lower()}"


class FakeVerbs:
    """Create, describe, list and delete of one kind of resource, in a dictionary."""

    def __init__(self, kind: str, member: str, listed: str) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self._kind, self._member, self._listed = kind, member, listed

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = request[f"{self._member}Name"]
        self.rows[name] = dict(request)
        return {f"{self._member}Arn": arn(self._kind, name)}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = request[f"{self._member}Name"]
        if name not in self.rows:
            raise ValidationException(f'Could not find {self._kind} "{arn(self._kind, name)}".')
        extra = {"EndpointStatus": "InService"} if self._member == "Endpoint" else {}
        return {
            **self.rows[name],
            **extra,
            f"{self._member}Arn": arn(self._kind, name),
            "CreationTime": AT,
            "LastModifiedTime": AT,
            "NotInTheModel": 1,
        }

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {
            self._listed: [
                {
                    f"{self._member}Name": name,
                    f"{self._member}Arn": arn(self._kind, name),
                    "CreationTime": AT,
                    "LastModifiedTime": AT,
                    "EndpointStatus": "InService",
                }
                for name in self.rows
            ]
        }

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.describe(request)
        del self.rows[request[f"{self._member}Name"]]
        return {}

    def update(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.describe(request)
        return {f"{self._member}Arn": arn(self._kind, request[f"{self._member}Name"])}

    update_weights_and_capacities = update
    stop = delete
    list_training_jobs = list
    list_steps = list

    def stages(self, name: str) -> dict[str, Any]:
        if name not in self.rows:
            raise NotFound(f"There is no endpoint {name!r}.")
        return {
            "name": name,
            "status": "Creating",
            "replicas": [
                {"id": "r1", "variant": "v", "status": "loading", "log_stream": "v/r1"},
            ],
            "stages": [{"name": "load", "seconds": 1.5, "state": "done"}],
        }


@dataclass
class FakeTags:
    tags: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, request: Mapping[str, Any]) -> dict[str, Any]:
        kept = self.tags.setdefault(request["ResourceArn"], {})
        kept.update({tag["Key"]: tag["Value"] for tag in request["Tags"]})
        return self.list(request)

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        kept = self.tags.get(request["ResourceArn"], {})
        return {"Tags": [{"Key": key, "Value": value} for key, value in kept.items()]}

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        for key in request["TagKeys"]:
            self.tags.get(request["ResourceArn"], {}).pop(key, None)
        return {}


class FakeScaling:
    """One target, which is whatever was registered last."""

    def __init__(self) -> None:
        self.targets: list[dict[str, Any]] = []

    def register(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.targets = [{**request, "RoleARN": "arn:aws:iam::1:role/r", "CreationTime": AT}]
        return {"ScalableTargetARN": "arn:aws:application-autoscaling:r:1:scalable-target/1"}

    def describe_targets(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"ScalableTargets": self.targets}

    def deregister(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.targets = []
        return {}

    def put_policy(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"PolicyARN": "arn:aws:autoscaling:r:1:scalingPolicy:1", "Alarms": []}

    def describe_policies(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"ScalingPolicies": []}

    def describe_activities(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"ScalingActivities": []}

    def list_tags(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"Tags": {}}

    delete_policy = tag = untag = deregister


class FakeAlarms:
    """Those that were put, all of them quiet."""

    def __init__(self) -> None:
        self.alarms: list[dict[str, Any]] = []

    def put(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.alarms.append({**request, "StateValue": "OK", "StateUpdatedTimestamp": AT})
        return {}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"MetricAlarms": self.alarms, "CompositeAlarms": []}

    def describe_history(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"AlarmHistoryItems": []}

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.alarms = []
        return {}

    def list_tags(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"Tags": []}

    set_state = enable_actions = disable_actions = tag = untag = delete
    describe_for_metric = describe


class FakeSessions:
    def assume_role(
        self, request: Mapping[str, Any], principal: str, until: int | None
    ) -> dict[str, Any]:
        who = {"AssumedRoleId": f"{principal}:x", "Arn": request["RoleArn"]}
        return {**self.get_session_token(request, principal, until), "AssumedRoleUser": who}

    def get_session_token(
        self, request: Mapping[str, Any], principal: str, until: int | None
    ) -> dict[str, Any]:
        pair = {"AccessKeyId": "RLAS" + 16 * "A", "SecretAccessKey": "s"}
        return {"Credentials": {**pair, "SessionToken": "t", "Expiration": AT}}


class FakeSchedules:
    """None, whatever is put."""

    def put(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"ScheduledActions": []}

    delete = put


class FakeZoo:
    CARD: ClassVar = {"id": "tiny", "version": "1.0.0", "task": "text-generation", "parameters": 7}

    def list(self, query: str = "") -> list[dict[str, Any]]:
        return [self.CARD] if query in "tiny" else []

    def show(self, card_id: str) -> dict[str, Any]:
        if card_id not in ("tiny", "org/Tiny"):
            raise NotFound(f"No model {card_id!r}.", hint="Did you mean 'tiny'?")
        return {**self.CARD, "image_uri": "r/i:t", "environment": {"HF_MODEL_ID": "tiny"}}


class FakeKeys:
    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def create(
        self, name: str, *, requests_per_minute: int | None, tokens_per_minute: int | None
    ) -> dict[str, Any]:
        if name in self.names.values():
            raise AlreadyExists(f"There is a key {name!r}.")
        key_id = "k" + hashlib.sha256(name.encode()).hexdigest()[:8]
        self.names[key_id] = name
        return {
            "key_id": key_id,
            "access_key_id": "A" * 16,
            "secret_access_key": "s",
            "api_key": "rl-x",
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
        }

    def list(self) -> list[dict[str, Any]]:
        return [{"key_id": key_id, "name": name} for key_id, name in self.names.items()]

    def delete(self, key_id: str) -> None:
        if self.names.pop(key_id, None) is None:
            raise NotFound(f"There is no key {key_id!r}.")


class FakeEvents:
    def list(self, *, resource: str = "", limit: int = 100) -> list[dict[str, Any]]:
        return [{"resource": arn("model", "m"), "change": "Created", "at": 1.5}][:limit]


class FakeSimulated:
    """One endpoint, "simulated", has a replica on a simulated device."""

    def __init__(self) -> None:
        self.faults: list[Mapping[str, object]] = []

    def show(self, name: str, /) -> list[dict[str, Any]]:
        if name != "simulated":
            raise NotFound(f"Could not find endpoint {name}.")
        return [{"id": "r1", "variant": "v", "device": {"instance_type": "inf2.xlarge"}}]

    def break_down(self, name: str, fault: Mapping[str, object], replica: str, /) -> list[str]:
        found = [one["id"] for one in self.show(name)]
        self.faults.append({**fault, "replica": replica})
        return found


class FakeControl:
    """The contract of the control plane, in memory."""

    def __init__(self) -> None:
        self.models = FakeVerbs("model", "Model", "Models")
        self.endpoint_configs = FakeVerbs("endpoint-config", "EndpointConfig", "EndpointConfigs")
        self.endpoints = FakeVerbs("endpoint", "Endpoint", "Endpoints")
        self.training_jobs = FakeVerbs("training-job", "TrainingJob", "TrainingJobSummaries")
        self.processing_jobs = FakeVerbs(
            "processing-job", "ProcessingJob", "ProcessingJobSummaries"
        )
        self.transform_jobs = FakeVerbs("transform-job", "TransformJob", "TransformJobSummaries")
        self.tuning_jobs = FakeVerbs(
            "hyper-parameter-tuning-job",
            "HyperParameterTuningJob",
            "HyperParameterTuningJobSummaries",
        )
        self.compilation_jobs = FakeVerbs(
            "compilation-job", "CompilationJob", "CompilationJobSummaries"
        )
        self.recommendations_jobs = FakeVerbs(
            "inference-recommendations-job", "Job", "InferenceRecommendationsJobs"
        )
        self.tags = FakeTags()
        self.scaling = FakeScaling()
        self.scheduled_actions = FakeSchedules()
        self.alarms = FakeAlarms()
        self.sessions = FakeSessions()
        self.zoo = FakeZoo()
        self.keys = FakeKeys()
        self.events = FakeEvents()
        self.simulated = FakeSimulated()
        self.running = False

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False
