"""``ridgeline scale`` against a service that answers by rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/e/variant/A",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    "MinCapacity": 1,
    "MaxCapacity": 4,
    "RoleARN": "arn:aws:iam::1:role/r",
    "CreationTime": 1.7e9,
}
ACTIVITY = {
    "ActivityId": "1",
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/e/variant/A",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    "Description": "Setting desired instance count to 3.",
    "Cause": "policy p asks for it",
    "StartTime": 1.7e9,
    "StatusCode": "Failed",
    "StatusMessage": "There is no room.",
}


POLICY = {
    "PolicyARN": "arn:aws:autoscaling:us-east-1:1:scalingPolicy:1",
    "PolicyName": "p",
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/e/variant/A",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    "PolicyType": "TargetTrackingScaling",
    "CreationTime": 1.7e9,
}
CHANGING = ("Register", "Put", "Deregister", "Update")


def changes(fake: Any) -> list[str]:
    return [name for name in fake.operations() if name.startswith(CHANGING)]


@pytest.fixture
def endpoint(fake: Any, sdk_tools: Any) -> Callable[..., None]:
    def have(*variants: str, targets: tuple[dict[str, Any], ...] = ()) -> None:
        fake.endpoint("e")
        described = dict(fake.rules["DescribeEndpoint"][0].body)
        described["ProductionVariants"] = [
            {"VariantName": name, "CurrentInstanceCount": 1, "DesiredInstanceCount": 2}
            for name in variants or ("A",)
        ]
        fake.on("DescribeEndpoint", sdk_tools.Reply(described))
        fake.on("DescribeScalableTargets", sdk_tools.Reply({"ScalableTargets": list(targets)}))
        fake.on("DescribeScalingPolicies", sdk_tools.Reply({"ScalingPolicies": []}))
        activities = {"ScalingActivities": [ACTIVITY] if targets else []}
        fake.on("DescribeScalingActivities", sdk_tools.Reply(activities))

    return have


def test_the_number_follows_the_load(fake: Any, run: Run, endpoint: Any, sdk_tools: Any) -> None:
    endpoint(targets=(TARGET,))
    fake.on("DescribeScalingPolicies", sdk_tools.Reply({"ScalingPolicies": [POLICY]}))
    told = run("scale", "e", "--min", "1", "--max", "4", "--concurrent", "8")
    assert told.exit_code == 0, told.stderr
    (registered,) = fake.requests("RegisterScalableTarget")
    assert (registered["ResourceId"], registered["MaxCapacity"]) == ("endpoint/e/variant/A", 4)
    (policy,) = fake.requests("PutScalingPolicy")
    config = policy["TargetTrackingScalingPolicyConfiguration"]
    assert config["TargetValue"] == 8.0
    assert "Concurrent" in config["PredefinedMetricSpecification"]["PredefinedMetricType"]
    assert "e: 1 of 2 instances of A" in told.stdout
    assert "follows its load from 1 to 4" in told.stdout
    assert "There is no room." in told.stdout


def test_a_fixed_number_ends_what_it_followed(fake: Any, run: Run, endpoint: Any) -> None:
    endpoint(targets=(TARGET,))
    assert run("scale", "e", "3").exit_code == 0
    assert len(fake.requests("DeregisterScalableTarget")) == 1
    (changed,) = fake.requests("UpdateEndpointWeightsAndCapacities")
    wanted = {"VariantName": "A", "DesiredInstanceCount": 3}
    assert changed["DesiredWeightsAndCapacities"] == [wanted]


def test_it_shows_and_changes_nothing_without_options(fake: Any, run: Run, endpoint: Any) -> None:
    endpoint()
    assert "follows no load" in run("scale", "e").stdout
    shown = json.loads(run("scale", "e", "--json").stdout)
    assert (shown["instances"], shown["wanted"], shown["target"]) == (1, 2, None)
    assert run("scale", "e", "--off").exit_code == 0
    assert changes(fake) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("2", "--min", "1"), "exclude each other"),
        (("2", "--off"), "exclude each other"),
        (("--min", "1"), "--concurrent"),
        (("--min", "1", "--max", "2"), "--per-minute"),
        (("--min", "1", "--max", "2", "--concurrent", "1", "--per-minute", "2"), "either"),
        (("--variant", "C"), "no variant 'C'"),
    ],
)
def test_what_does_not_go_together_is_refused(
    run: Run, endpoint: Any, options: tuple[str, ...], named: str
) -> None:
    endpoint("A", "B")
    told = run("scale", "e", *options)
    assert told.exit_code in (2, 4)
    assert named in told.stderr


def test_of_several_variants_one_is_named(run: Run, endpoint: Any) -> None:
    endpoint("A", "B")
    told = run("scale", "e")
    assert told.exit_code == 2
    assert "--variant: A, B" in told.stderr
    assert run("scale", "e", "--variant", "B").exit_code == 0


@pytest.mark.parametrize("option", ["--concurrent", "--per-minute"])
@pytest.mark.parametrize("target", ["0", "-1", "nan", "1e999"])
def test_a_target_that_is_none_changes_nothing(
    fake: Any, run: Run, endpoint: Any, option: str, target: str
) -> None:
    endpoint()
    told = run("scale", "e", "--min", "3", "--max", "4", option, target)
    assert told.exit_code == 2
    assert "above 0" in told.stderr
    assert changes(fake) == []


@pytest.mark.parametrize(
    ("targets", "last"),
    [((), "DeregisterScalableTarget"), ((TARGET,), "RegisterScalableTarget")],
)
def test_a_refused_policy_leaves_the_bounds_as_they_were(
    fake: Any, run: Run, endpoint: Any, sdk_tools: Any, targets: Any, last: str
) -> None:
    endpoint(targets=targets)
    fake.rules["PutScalingPolicy"] = sdk_tools.aws_error("ValidationException", "no such metric")
    told = run("scale", "e", "--min", "3", "--max", "9", "--concurrent", "8")
    assert (told.exit_code, told.stderr) == (2, "error: no such metric\n")
    assert changes(fake) == ["RegisterScalableTarget", "PutScalingPolicy", last]
    if targets:
        restored = fake.requests("RegisterScalableTarget")[-1]
        assert (restored["MinCapacity"], restored["MaxCapacity"]) == (1, 4)


def test_a_refused_number_leaves_what_it_followed(
    fake: Any, run: Run, endpoint: Any, sdk_tools: Any
) -> None:
    endpoint(targets=(TARGET,))
    refused = sdk_tools.aws_error("ValidationException", "0 is too few.")
    fake.rules["UpdateEndpointWeightsAndCapacities"] = refused
    assert run("scale", "e", "0").exit_code == 2
    assert changes(fake) == ["UpdateEndpointWeightsAndCapacities"]


def test_a_target_without_a_policy_follows_nothing(run: Run, endpoint: Any) -> None:
    endpoint(targets=(TARGET,))
    told = run("scale", "e").stdout
    assert "is held between 1 and 4" in told
    assert "follows its load" not in told


def test_an_endpoint_that_failed_is_in_the_wrong_state(
    fake: Any, run: Run, endpoint: Any, sdk_tools: Any
) -> None:
    endpoint()
    words = 'Cannot change weights or capacities of endpoint "e": its status is Failed.'
    refused = sdk_tools.aws_error("ValidationException", words)
    fake.rules["UpdateEndpointWeightsAndCapacities"] = refused
    assert run("scale", "e", "2").exit_code == 6
