"""The operations of Application Auto Scaling: what they keep, show and refuse."""

from __future__ import annotations

import pytest

from ridgeline_service.control.scaling.pages import InvalidNextToken
from ridgeline_service.control.scaling.resources import ObjectNotFound
from ridgeline_service.control.scaling.verbs import TooManyTags
from ridgeline_service.errors import ValidationException
from ridgeline_service.store import journal

from .test_scaling import RESOURCE, Scaled


@pytest.fixture
def scaled(world):
    world.deploy("e")
    made = Scaled(world)
    yield made
    made.samples.close()


def test_what_is_registered_is_described(scaled):
    plane = scaled.world.plane
    arn = scaled.register(1, 4, Tags={"team": "a"})
    assert scaled.register(2, 4) == arn
    scaled.policy(60.0)
    target = plane.scaling.describe_targets({**RESOURCE, "ResourceIds": [RESOURCE["ResourceId"]]})
    (shown,) = target["ScalableTargets"]
    assert (shown["MinCapacity"], shown["MaxCapacity"]) == (2, 4)
    assert shown["SuspendedState"]["DynamicScalingInSuspended"] is False
    assert plane.scaling.list_tags({"ResourceARN": arn}) == {"Tags": {"team": "a"}}
    plane.scaling.untag({"ResourceARN": arn, "TagKeys": ["team"]})
    assert plane.scaling.list_tags({"ResourceARN": arn}) == {"Tags": {}}
    (policy,) = plane.scaling.describe_policies({**RESOURCE})["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 60.0
    plane.scaling.delete_policy({**RESOURCE, "PolicyName": "p"})
    with pytest.raises(ObjectNotFound, match="policy name: p"):
        plane.scaling.delete_policy({**RESOURCE, "PolicyName": "p"})
    plane.scaling.deregister(RESOURCE)
    with pytest.raises(ObjectNotFound, match="No scalable target"):
        plane.scaling.deregister(RESOURCE)


def test_pages_hold_all_activities_once(scaled):
    for low in (2, 3, 4, 2):
        scaled.register(low, max(low, 4))
        scaled.look()
        scaled.world.settle()
    scaled.register(1, 1)
    scaled.look()
    every = [each["ActivityId"] for each in scaled.activities()]
    assert len(every) == 4
    paged, token = [], {}
    while True:
        asked = {"ServiceNamespace": "sagemaker", "MaxResults": 1, **token}
        page = scaled.world.plane.scaling.describe_activities(asked)
        paged += [each["ActivityId"] for each in page["ScalingActivities"]]
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert paged == every
    with pytest.raises(InvalidNextToken):
        scaled.activities(NextToken="x" * 9)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ServiceNamespace": "ecs"}, "ecs"),
        ({"ScalableDimension": "sagemaker:inference-component:DesiredCopyCount"}, "component"),
        ({"ResourceId": "endpoint/e"}, "endpoint/ENDPOINT_NAME/variant/VARIANT_NAME"),
        ({"ResourceId": "endpoint/x/variant/A"}, 'endpoint "x"'),
        ({"ResourceId": "endpoint/e/variant/B"}, 'variant "B"'),
        ({"MinCapacity": 5}, "greater than maximum"),
        ({"MinCapacity": 0}, "AsyncInferenceConfig"),
    ],
)
def test_a_target_that_cannot_be_scaled_is_refused_by_name(world, changes, named):
    world.deploy("e")
    with pytest.raises(ValidationException, match=named):
        world.plane.scaling.register({**RESOURCE, "MinCapacity": 1, "MaxCapacity": 4, **changes})


def test_capacities_are_required_at_first_and_configurations_too(world):
    world.deploy("e")
    with pytest.raises(ValidationException, match="MinCapacity and MaxCapacity are required"):
        world.plane.scaling.register({**RESOURCE, "MaxCapacity": 4})
    with pytest.raises(ValidationException, match="needs a StepScalingPolicyConfiguration"):
        world.plane.scaling.put_policy({**RESOURCE, "PolicyName": "p"})
    other = {"PolicyName": "p", "PolicyType": "PredictiveScaling"}
    with pytest.raises(ValidationException, match="PredictiveScaling is not supported"):
        world.plane.scaling.put_policy({**RESOURCE, **other})


def test_tags_are_bounded_and_go_with_the_endpoint(scaled):
    plane = scaled.world.plane
    arn = scaled.register(1, 4)
    plane.scaling.tag({"ResourceARN": arn, "Tags": {str(n): "x" for n in range(50)}})
    with pytest.raises(TooManyTags):
        plane.scaling.tag({"ResourceARN": arn, "Tags": {"more": "x"}})
    with pytest.raises(ValidationException, match="aws:mine"):
        plane.scaling.tag({"ResourceARN": arn, "Tags": {"aws:mine": "x"}})
    plane.endpoints.delete({"EndpointName": "e"})
    scaled.world.settle()
    with plane.scaling._context.db.read() as connection:
        assert journal.tags_of(connection, arn) == {}
