"""Scalable targets, as boto3 registers them: what the scaler does with their endpoints."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline_service.control.scaling.scaler import Scaler
from ridgeline_service.errors import ValidationException
from ridgeline_service.placement.machine import GIB
from ridgeline_service.settings import Settings
from ridgeline_service.telemetry.samples import Metric, Sample, SampleStore

from .conftest import data_is_gone

RESOURCE = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/e/variant/A",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
DIMENSIONS = (("EndpointName", "e"), ("VariantName", "A"))


class Scaled:
    """An endpoint that is registered, and the load on it."""

    def __init__(self, world, low: int = 1, high: int = 4) -> None:
        self.world = world
        self.samples = SampleStore(world.data_dir.samples)
        self.register(low, high)

    def register(self, low: int, high: int, **values: object) -> str:
        request = {**RESOURCE, "MinCapacity": low, "MaxCapacity": high, **values}
        return self.world.plane.scaling.register(request)["ScalableTargetARN"]

    def policy(self, target: float = 60.0, name: str = "p", **config: object) -> None:
        if "CustomizedMetricSpecification" not in config:
            kind = "SageMakerVariantInvocationsPerInstance"
            config["PredefinedMetricSpecification"] = {"PredefinedMetricType": kind}
        self.world.plane.scaling.put_policy(
            {
                **RESOURCE,
                "PolicyName": name,
                "PolicyType": "TargetTrackingScaling",
                "TargetTrackingScalingPolicyConfiguration": {"TargetValue": target, **config},
            }
        )

    def minutes(self, count: int, load: float, name: str = "InvocationsPerInstance") -> None:
        """So many minutes pass, each with the load shared out over the instances that serve; the
        scaler looks twice in each."""
        for _ in range(count):
            self.world.tick(60 - self.world.now % 60)
            each = load / max(1, len(self.world.serving("e")))
            metric = Metric("AWS/SageMaker", name, DIMENSIONS)
            if load:
                self.samples.put([Sample(metric, self.world.now, "None", 1, each, each, each)])
            for _ in range(2):
                self.world.now += 26
                self.look()

    def backlog(self, size: int) -> None:
        """Ten seconds with so much waiting for each instance."""
        begin = self.world.now // 10 * 10 + 10
        metric = Metric("AWS/SageMaker", "ApproximateBacklogSizePerInstance", DIMENSIONS)
        self.samples.put([Sample(metric, begin, "None", 10, 10 * size, size, size)])
        self.world.now = begin + 13

    def look(self) -> None:
        self.world.plane.scale_once()
        for _ in range(4):
            self.world.tick(0.5)
        self.world.plane.scale_once()

    def activities(self, **request: object) -> list[dict[str, Any]]:
        asked = {"ServiceNamespace": "sagemaker", **request}
        return self.world.plane.scaling.describe_activities(asked)["ScalingActivities"]

    @property
    def count(self) -> int:
        return int(self.world.describe("e")["ProductionVariants"][0]["DesiredInstanceCount"])


@pytest.fixture
def scaled(world):
    world.deploy("e")
    made = Scaled(world)
    yield made
    made.samples.close()


def test_load_scales_out_and_its_end_scales_in(scaled):
    scaled.policy(60.0)
    scaled.minutes(3, 50)
    assert scaled.count == 1
    scaled.minutes(6, 170)
    assert (scaled.count, len(scaled.world.serving("e"))) == (3, 3)
    first = scaled.activities()[0]
    assert first["StatusCode"] == "Successful"
    assert first["Description"] == "Setting desired instance count to 3."
    assert "policy p" in first["Cause"]
    assert "InvocationsPerInstance" in first["Cause"]
    scaled.minutes(14, 0)
    assert scaled.count == 3
    scaled.minutes(4, 0)
    assert (scaled.count, len(scaled.world.serving("e"))) == (1, 1)
    assert [each["StatusCode"] for each in scaled.activities()] == ["Successful"] * 2


def test_without_a_policy_or_below_the_target_nothing_happens(scaled):
    scaled.minutes(5, 1000)
    assert scaled.count == 1
    scaled.policy(2000.0)
    scaled.minutes(25, 1000)
    assert scaled.count == 1
    assert scaled.activities() == []


def test_capacity_is_brought_within_its_bounds(scaled):
    scaled.register(2, 3)
    scaled.look()
    scaled.world.settle()
    assert scaled.count == 2
    assert scaled.activities()[0]["Cause"] == "minimum capacity was set to 2"
    scaled.world.scale("e", count=4)
    scaled.world.settle()
    scaled.look()
    assert scaled.count == 3
    assert scaled.activities()[0]["Cause"] == "maximum capacity was set to 3"


def test_the_maximum_holds_and_is_said_once(scaled):
    scaled.register(1, 2)
    scaled.policy(10.0)
    scaled.minutes(20, 1000)
    assert scaled.count == 2
    assert len(scaled.activities()) == 1
    found = scaled.activities(IncludeNotScaledActivities=True)
    assert len(found) == 2
    assert found[0]["NotScaledReasons"] == [{"Code": "AlreadyAtMaxCapacity", "MaxCapacity": 2}]


def test_a_cooldown_is_waited_for(scaled):
    scaled.policy(60.0, ScaleOutCooldown=600)
    scaled.minutes(5, 110)
    assert scaled.count == 2
    scaled.minutes(6, 230)
    assert scaled.count == 2
    scaled.minutes(6, 230)
    assert scaled.count == 4


def test_scale_in_may_be_disabled_or_suspended(scaled):
    scaled.policy(60.0, DisableScaleIn=True)
    scaled.minutes(5, 110)
    scaled.minutes(20, 0)
    assert scaled.count == 2
    scaled.policy(60.0)
    scaled.register(1, 4, SuspendedState={"DynamicScalingInSuspended": True})
    scaled.minutes(3, 0)
    assert scaled.count == 2
    scaled.register(1, 4, SuspendedState={"DynamicScalingInSuspended": False})
    scaled.look()
    assert scaled.count == 1


def test_of_several_policies_the_largest_capacity_counts(scaled):
    scaled.policy(60.0)
    usage = {
        "MetricName": "ModelLatency",
        "Namespace": "AWS/SageMaker",
        "Dimensions": [{"Name": name, "Value": value} for name, value in DIMENSIONS],
        "Statistic": "Average",
    }
    scaled.policy(1000.0, "latency", CustomizedMetricSpecification=usage)
    for _ in range(4):
        scaled.minutes(1, 2900, "ModelLatency")
    assert scaled.count == 3
    assert "policy latency" in scaled.activities()[0]["Cause"]
    # Nobody asks: the one would scale in, the other has no data and does not agree.
    scaled.minutes(20, 0)
    assert scaled.count == 3


def test_as_many_as_there_is_room_for(make_world):
    world = make_world(memory_bytes=3 * GIB)
    world.deploy("e")
    scaled = Scaled(world, 1, 8)
    scaled.policy(10.0)
    scaled.minutes(5, 1000)
    assert scaled.count == 3
    scaled.minutes(20, 1000)
    assert scaled.count == 3
    assert len(scaled.world.serving("e")) == 3
    last = scaled.activities()[0]
    assert last["StatusCode"] == "Failed"
    assert "no room for another instance: one needs 1.0 GiB, and 0.0 GiB" in last["StatusMessage"]
    scaled.samples.close()


def test_two_that_grow_at_once_share_what_there_is(make_world):
    world = make_world(settings=Settings(max_instances=6))
    for name in ("e", "f"):
        world.deploy(name)
        resource = {**RESOURCE, "ResourceId": f"endpoint/{name}/variant/A"}
        world.plane.scaling.register({**resource, "MinCapacity": 5, "MaxCapacity": 5})
    world.plane.scale_once()
    world.settle()
    world.plane.scale_once()
    assert [world.status(name) for name in ("e", "f")] == ["InService", "InService"]
    assert [len(world.serving(name)) for name in ("e", "f")] == [5, 1]
    asked = {"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/f/variant/A"}
    (last,) = world.plane.scaling.describe_activities(asked)["ScalingActivities"]
    assert "max_instances in settings.json allows 6" in last["StatusMessage"]
    # As soon as there is room it is taken, and said how much of what was wanted that is.
    world.plane.scaling.register({**RESOURCE, "MinCapacity": 2, "MaxCapacity": 2})
    for _ in range(3):
        world.plane.scale_once()
        world.settle()
    assert [len(world.serving(name)) for name in ("e", "f")] == [2, 4]
    found = world.plane.scaling.describe_activities(asked)["ScalingActivities"]
    assert "of 5 there is room for 4" in found[1]["Cause"]


def test_one_target_that_fails_stops_no_other(scaled, monkeypatch):
    world = scaled.world
    world.deploy("a")
    world.plane.scaling.register(
        {
            **RESOURCE,
            "ResourceId": "endpoint/a/variant/A",
            "MinCapacity": 2,
            "MaxCapacity": 2,
        }
    )
    real = Scaler._scale

    def fails_for_a(self, seen, wish):
        assert seen.endpoint.name != "a", "a bug"
        real(self, seen, wish)

    monkeypatch.setattr(Scaler, "_scale", fails_for_a)
    scaled.register(2, 4)
    scaled.look()
    assert scaled.count == 2


def test_a_metric_beyond_all_measure_is_bounded(scaled):
    scaled.register(1, 2)
    scaled.policy(0.001)
    scaled.minutes(5, 1e17)
    scaled.minutes(5, 1e17)
    assert scaled.count == 2


def test_a_variant_that_became_serverless_waits(scaled):
    scaled.register(2, 3)
    world = scaled.world
    world.plane.endpoint_configs.create(
        {
            "EndpointConfigName": "s",
            "ProductionVariants": [
                {
                    "VariantName": "A",
                    "ModelName": "e",
                    "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 4},
                }
            ],
        }
    )
    world.update("e", "s")
    world.settle()
    scaled.look()
    assert scaled.activities() == []
    with pytest.raises(ValidationException, match="serverless"):
        world.scale("e", count=2)


def test_a_scale_out_whose_replicas_fail_is_told_and_undone(scaled):
    scaled.world.slow = data_is_gone
    scaled.register(2, 4)
    scaled.minutes(4, 10)
    (first,) = scaled.activities()
    assert first["StatusCode"] == "Failed"
    assert "the data is gone" in first["StatusMessage"]
    assert scaled.world.status("e") == "InService"
    scaled.world.slow = None
    scaled.minutes(4, 10)
    assert [each["StatusCode"] for each in scaled.activities()] == ["Successful", "Failed"]
    assert scaled.count == 2


def test_an_asynchronous_endpoint_gives_up_its_last_instance_and_comes_back(world):
    world.model("m")
    world.plane.endpoint_configs.create(
        {
            "EndpointConfigName": "c",
            "ProductionVariants": [
                {
                    "VariantName": "A",
                    "ModelName": "m",
                    "InitialInstanceCount": 1,
                    "InstanceType": "ml.m5.large",
                }
            ],
            "AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://b/out"}},
        }
    )
    world.endpoint("e", "c")
    world.settle()
    scaled = Scaled(world, 0, 3)
    backlog = {
        "MetricName": "ApproximateBacklogSizePerInstance",
        "Namespace": "AWS/SageMaker",
        "Dimensions": [{"Name": name, "Value": value} for name, value in DIMENSIONS],
        "Statistic": "Average",
    }
    scaled.policy(5.0, CustomizedMetricSpecification=backlog)
    scaled.minutes(18, 0)
    assert (scaled.count, world.serving("e"), world.status("e")) == (0, [], "InService")
    assert world.living() == set()
    # The first instance waits for no cooldown.
    scaled.backlog(3)
    scaled.look()
    world.settle()
    assert (scaled.count, len(world.serving("e"))) == (1, 1)
    scaled.samples.close()


def test_a_killed_control_plane_goes_on_where_it_was(scaled):
    scaled.policy(60.0)
    scaled.minutes(2, 170)
    world = scaled.world
    for _ in range(3):
        world.kill_plane()
        scaled.minutes(1, 170)
    assert scaled.count == 3
    world.kill_plane()
    world.settle()
    world.plane.scale_once()
    assert [each["StatusCode"] for each in scaled.activities()] == ["Successful"]


def test_an_endpoint_takes_its_target_along_when_it_is_deleted(scaled):
    scaled.policy()
    scaled.minutes(5, 110)
    scaled.world.plane.endpoints.delete({"EndpointName": "e"})
    scaled.world.settle()
    asked = {"ServiceNamespace": "sagemaker"}
    assert scaled.world.plane.scaling.describe_targets(asked)["ScalableTargets"] == []
    assert scaled.world.plane.scaling.describe_policies(asked)["ScalingPolicies"] == []
    assert len(scaled.activities()) == 1
