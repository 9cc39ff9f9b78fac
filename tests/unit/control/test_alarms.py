"""CloudWatch alarms as boto3 puts them: their states, what they set off, what they roll back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ridgeline_service.control.alarms.definition import ValidationError
from ridgeline_service.control.alarms.verbs import (
    InvalidFormat,
    InvalidNextToken,
    ResourceNotFound,
    ResourceNotFoundException,
)
from ridgeline_service.errors import ValidationException
from ridgeline_service.telemetry.samples import Metric, Sample, SampleStore

from .test_scaling import RESOURCE
from .test_update_traffic import begin, policy, shares, until_moving, update

LOAD = Metric("Mine", "Load")


class Watched:
    """A world with alarms over one metric of the user's own."""

    def __init__(self, world) -> None:
        self.world = world
        self.verbs = world.plane.alarms
        self.samples = SampleStore(world.data_dir.samples)

    def put(self, name: str = "high", **changes: object) -> None:
        self.verbs.put(
            {
                "AlarmName": name,
                "Namespace": LOAD.namespace,
                "MetricName": LOAD.name,
                "Statistic": "Average",
                "Period": 60,
                "EvaluationPeriods": 1,
                "Threshold": 10.0,
                "ComparisonOperator": "GreaterThanThreshold",
                **changes,
            }
        )

    def minute(self, value: float | None) -> None:
        """A minute with one sample, if any; then everybody looks."""
        at = self.world.now // 60 * 60
        if value is not None:
            self.samples.put([Sample(LOAD, at, "None", 1, value, value, value)])
        self.world.tick(at + 63 - self.world.now)
        self.look()

    def look(self) -> None:
        self.world.plane.scale_once()
        for _ in range(4):
            self.world.tick(0.5)
        self.world.plane.scale_once()

    def shown(self, name: str = "high") -> dict[str, Any]:
        [alarm] = self.verbs.describe({"AlarmNames": [name]})["MetricAlarms"]
        return alarm

    def state(self, name: str = "high") -> str:
        return str(self.shown(name)["StateValue"])

    def history(self, **request: object) -> list[str]:
        items = self.verbs.describe_history(request)["AlarmHistoryItems"]
        return [item["HistorySummary"] for item in items]

    def policy(self, adjustment: int, *, low: float | None = 0.0, **config: object) -> str:
        """A step policy of endpoint e: above the threshold, or below it where ``low`` is None."""
        bound = "MetricIntervalUpperBound" if low is None else "MetricIntervalLowerBound"
        steps = {
            "AdjustmentType": "ChangeInCapacity",
            "StepAdjustments": [{bound: 0.0, "ScalingAdjustment": adjustment}],
            "Cooldown": 0,
            **config,
        }
        answer = self.world.plane.scaling.put_policy(
            {
                **RESOURCE,
                "PolicyName": f"by{adjustment}",
                "PolicyType": "StepScaling",
                "StepScalingPolicyConfiguration": steps,
            }
        )
        return str(answer["PolicyARN"])

    @property
    def count(self) -> int:
        variant = self.world.describe("e")["ProductionVariants"][0]
        return int(variant["DesiredInstanceCount"])


@pytest.fixture
def watched(world):
    made = Watched(world)
    yield made
    made.samples.close()


@pytest.fixture
def scaled(watched):
    watched.world.deploy("e")
    watched.world.plane.scaling.register({**RESOURCE, "MinCapacity": 1, "MaxCapacity": 4})
    return watched


def test_an_alarm_follows_its_metric_and_says_why(watched):
    watched.put(AlarmDescription="too much")
    assert watched.state() == "INSUFFICIENT_DATA"
    assert watched.shown()["StateReason"] == "Unchecked: Initial alarm creation"
    watched.minute(5.0)
    assert watched.state() == "OK"
    watched.minute(25.0)
    alarm = watched.shown()
    assert alarm["StateValue"] == "ALARM"
    assert "25" in alarm["StateReason"]
    assert alarm["AlarmDescription"] == "too much"
    assert alarm["AlarmArn"].endswith(":alarm:high")
    assert alarm["ActionsEnabled"] is True
    for _ in range(3):
        watched.minute(None)
    assert watched.state() == "INSUFFICIENT_DATA"
    assert watched.history() == [
        "Alarm updated from ALARM to INSUFFICIENT_DATA",
        "Alarm updated from OK to ALARM",
        "Alarm updated from INSUFFICIENT_DATA to OK",
        'Alarm "high" created',
    ]
    assert watched.history(HistoryItemType="ConfigurationUpdate") == ['Alarm "high" created']
    assert watched.history(ScanBy="TimestampAscending")[0] == 'Alarm "high" created'


def test_a_new_definition_keeps_the_state_and_is_judged_at_once(watched):
    watched.put()
    watched.minute(25.0)
    watched.put(Threshold=30.0)
    assert watched.state() == "ALARM"
    watched.look()
    assert watched.state() == "OK"
    assert watched.shown()["Threshold"] == 30.0


def test_a_state_that_is_set_lasts_until_the_next_period(watched):
    watched.put()
    watched.minute(5.0)
    watched.verbs.set_state(
        {"AlarmName": "high", "StateValue": "ALARM", "StateReason": "trying it"}
    )
    watched.look()
    assert watched.state() == "ALARM"
    assert watched.shown()["StateReason"] == "trying it"
    watched.minute(5.0)
    assert watched.state() == "OK"
    with pytest.raises(ResourceNotFound, match="'low'"):
        watched.verbs.set_state({"AlarmName": "low", "StateValue": "OK", "StateReason": ""})


def test_alarms_are_listed_by_name_state_prefix_and_metric(watched):
    for name in ("b", "a", "c"):
        watched.put(name)
    watched.put("other", MetricName="Other", TreatMissingData="breaching")
    watched.look()

    def names(**request: object) -> list[str]:
        found = watched.verbs.describe(request)["MetricAlarms"]
        return [alarm["AlarmName"] for alarm in found]

    assert names() == ["a", "b", "c", "other"]
    assert names(AlarmNames=["c", "none"]) == ["c"]
    assert names(AlarmNamePrefix="o", StateValue="ALARM") == ["other"]
    assert names(StateValue="OK") == []
    assert names(AlarmTypes=["CompositeAlarm"]) == []
    first = watched.verbs.describe({"MaxRecords": 3})
    rest = watched.verbs.describe({"MaxRecords": 3, "NextToken": first["NextToken"]})
    assert [alarm["AlarmName"] for alarm in rest["MetricAlarms"]] == ["other"]
    assert "NextToken" not in rest
    other = watched.verbs.describe_history({"MaxRecords": 1})["NextToken"]
    for token in ("?", "e30=", other):
        with pytest.raises(InvalidNextToken):
            watched.verbs.describe({"NextToken": token})
    of_metric = {"Namespace": "Mine", "MetricName": "Other"}
    assert [
        alarm["AlarmName"] for alarm in watched.verbs.describe_for_metric(of_metric)["MetricAlarms"]
    ] == ["other"]
    assert watched.verbs.describe_for_metric({**of_metric, "Period": 300})["MetricAlarms"] == []


def test_history_is_kept_by_time_and_survives_its_alarm(watched):
    watched.put()
    watched.world.now += 100
    middle = datetime.fromtimestamp(watched.world.now, UTC)
    watched.world.now += 100
    watched.verbs.delete({"AlarmNames": ["high"]})
    assert watched.history(AlarmName="high") == ['Alarm "high" deleted', 'Alarm "high" created']
    assert watched.history(StartDate=middle) == ['Alarm "high" deleted']
    assert watched.history(EndDate=middle) == ['Alarm "high" created']
    assert watched.history(AlarmName="low") == []


def test_all_of_the_named_alarms_are_deleted_or_none(watched):
    watched.put("a")
    with pytest.raises(ResourceNotFound, match="'b'"):
        watched.verbs.delete({"AlarmNames": ["a", "b"]})
    assert watched.state("a") == "INSUFFICIENT_DATA"
    watched.verbs.delete({"AlarmNames": ["a"]})
    assert watched.verbs.describe({})["MetricAlarms"] == []


def test_tags_go_with_the_alarm(watched):
    watched.put(Tags=[{"Key": "team", "Value": "x"}])
    arn = watched.shown()["AlarmArn"]
    watched.verbs.tag({"ResourceARN": arn, "Tags": [{"Key": "stage", "Value": "y"}]})
    watched.verbs.untag({"ResourceARN": arn, "TagKeys": ["team"]})
    tags = watched.verbs.list_tags({"ResourceARN": arn})["Tags"]
    assert tags == [{"Key": "stage", "Value": "y"}]
    watched.verbs.delete({"AlarmNames": ["high"]})
    with pytest.raises(ResourceNotFoundException):
        watched.verbs.list_tags({"ResourceARN": arn})
    watched.put()
    assert watched.verbs.list_tags({"ResourceARN": arn})["Tags"] == []


@pytest.mark.parametrize("kind", ["AlarmActions", "OKActions", "InsufficientDataActions"])
def test_actions_that_nobody_would_do_are_refused(watched, kind):
    with pytest.raises(ValidationError, match=f"{kind} has 'arn:aws:sns"):
        watched.put(**{kind: ["arn:aws:sns:us-east-1:1:topic"]})
    assert watched.verbs.describe({})["MetricAlarms"] == []


def test_a_step_policy_scales_out_and_in_while_its_alarms_ring(scaled):
    more, fewer = scaled.policy(2), scaled.policy(-1, low=None)
    scaled.put("high", AlarmActions=[more])
    below = {"ComparisonOperator": "LessThanThreshold", "Threshold": 2.0}
    scaled.put("low", AlarmActions=[fewer], **below)
    scaled.minute(5.0)
    assert scaled.count == 1
    scaled.minute(25.0)
    assert scaled.count == 3
    scaled.minute(25.0)
    assert scaled.count == 4
    scaled.minute(25.0)
    assert scaled.count == 4
    for expected in (3, 2, 1, 1):
        scaled.minute(1.0)
        assert scaled.count == expected
    asked = {"ServiceNamespace": "sagemaker"}
    first = scaled.world.plane.scaling.describe_activities(asked)["ScalingActivities"][-1]
    assert first["Cause"] == "alarm high in state ALARM set off policy by2"
    assert first["StatusCode"] == "Successful"


def test_how_far_the_threshold_is_passed_chooses_the_step(scaled):
    steps = [
        {
            "MetricIntervalLowerBound": 0.0,
            "MetricIntervalUpperBound": 10.0,
            "ScalingAdjustment": 1,
        },
        {"MetricIntervalLowerBound": 10.0, "ScalingAdjustment": 3},
    ]
    scaled.put(AlarmActions=[scaled.policy(1, StepAdjustments=steps)])
    scaled.minute(25.0)
    assert scaled.count == 4


def test_an_alarm_without_actions_or_whose_cooldown_runs_scales_nothing(scaled):
    scaled.put(AlarmActions=[scaled.policy(1, Cooldown=600)])
    scaled.verbs.disable_actions({"AlarmNames": ["high", "none"]})
    scaled.minute(25.0)
    assert (scaled.state(), scaled.count) == ("ALARM", 1)
    scaled.verbs.enable_actions({"AlarmNames": ["high"]})
    scaled.minute(25.0)
    assert scaled.count == 2
    for _ in range(9):
        scaled.minute(25.0)
    assert scaled.count == 2
    for _ in range(3):
        scaled.minute(25.0)
    assert scaled.count == 3


def test_an_alarm_that_is_set_off_by_hand_takes_the_first_step(scaled):
    scaled.put(AlarmActions=[scaled.policy(1)])
    scaled.minute(5.0)
    scaled.verbs.set_state({"AlarmName": "high", "StateValue": "ALARM", "StateReason": "by hand"})
    scaled.look()
    assert scaled.count == 2


def test_policies_tell_their_alarms(scaled):
    arn = scaled.policy(1)
    scaled.put(AlarmActions=[arn])
    asked = {"ServiceNamespace": "sagemaker"}
    [policy] = scaled.world.plane.scaling.describe_policies(asked)["ScalingPolicies"]
    assert policy["PolicyType"] == "StepScaling"
    assert policy["StepScalingPolicyConfiguration"]["Cooldown"] == 0
    assert [alarm["AlarmName"] for alarm in policy["Alarms"]] == ["high"]
    asked = {"ActionPrefix": arn[:30]}
    assert len(scaled.verbs.describe(asked)["MetricAlarms"]) == 1


def rolled_back_by(name: str) -> dict[str, Any]:
    slow = policy("CANARY", 300, 300, CanarySize=10)
    return {**slow, "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name}]}}


def test_an_alarm_that_rings_while_traffic_moves_rolls_the_update_back(watched):
    world = watched.world
    watched.put()
    watched.minute(5.0)
    begin(world, rolled_back_by("high"))
    until_moving(world)
    watched.minute(5.0)
    assert shares(world) == [0.9, 0.1]
    watched.minute(25.0)
    world.settle()
    assert len(shares(world)) == 1
    described = world.describe("e")
    assert described["EndpointStatus"] == "InService"
    assert described["EndpointConfigName"] == "e"
    assert "high is in ALARM: Threshold Crossed" in described["FailureReason"]


def test_an_alarm_that_rings_before_moves_no_traffic(watched):
    world = watched.world
    watched.put()
    watched.minute(25.0)
    begin(world, rolled_back_by("high"))
    for _ in range(60):
        world.tick(1.0)
        assert len(shares(world)) == 1
    world.settle()
    described = world.describe("e")
    assert described["EndpointConfigName"] == "e"
    assert "high is in ALARM, before any traffic has moved" in described["FailureReason"]


def test_an_alarm_of_another_name_rolls_nothing_back(watched):
    world = watched.world
    watched.put()
    watched.put("other", TreatMissingData="breaching", MetricName="Other")
    watched.minute(5.0)
    assert watched.state("other") == "ALARM"
    begin(world, rolled_back_by("high"))
    until_moving(world)
    for _ in range(12):
        watched.minute(5.0)
    assert world.describe("e")["EndpointConfigName"] == "c2"


def test_a_clean_up_may_delete_what_it_lists(watched):
    for number in range(7):
        watched.put(f"a{number}")
    seen, token = [], None
    while True:
        page = {"MaxRecords": 2} if token is None else {"MaxRecords": 2, "NextToken": token}
        answer = watched.verbs.describe(page)
        names = [alarm["AlarmName"] for alarm in answer["MetricAlarms"]]
        watched.verbs.delete({"AlarmNames": names})
        seen += names
        token = answer.get("NextToken")
        if token is None:
            break
    assert seen == [f"a{number}" for number in range(7)]


def test_a_policy_that_hears_no_alarm_is_no_action(scaled):
    arn = scaled.policy(1)
    scaled.put(AlarmActions=[arn])
    tracking = {
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": 1.0,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
            },
        },
    }
    put = scaled.world.plane.scaling.put_policy
    with pytest.raises(ValidationException, match="alarm 'high' sets it off"):
        put({**RESOURCE, "PolicyName": "by1", **tracking})
    other = put({**RESOURCE, "PolicyName": "t", **tracking})["PolicyARN"]
    with pytest.raises(ValidationError, match="no step scaling policy has that ARN"):
        scaled.put("more", AlarmActions=[other])


def test_reason_data_is_json(watched):
    watched.put()
    given = {"AlarmName": "high", "StateValue": "OK", "StateReason": ""}
    with pytest.raises(InvalidFormat, match="not JSON"):
        watched.verbs.set_state({**given, "StateReasonData": "{not"})


def test_a_rollback_alarm_must_be_there(watched):
    world = watched.world
    world.deploy("e")
    world.config("c2", "e")
    with pytest.raises(ValidationException, match="alarm 'high' is not found"):
        update(world, DeploymentConfig=rolled_back_by("high"))
    assert world.status("e") == "InService"
