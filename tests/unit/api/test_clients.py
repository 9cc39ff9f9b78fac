"""Unmodified botocore clients against the application: what they send is read, what they get is
parsed by their own parsers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

from ridgeline_service.api.absent import EMPTY_LISTS
from ridgeline_service.paths import DataDir

ROLE = "arn:aws:iam::123456789012:role/RidgelineExecution"
NOW = datetime(2026, 5, 6, 7, 0, tzinfo=UTC)


def failure(call: Any, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return {**caught.value.response["Error"], **caught.value.response["ResponseMetadata"]}


def test_a_model_lives_and_dies(served) -> None:
    sagemaker = served.client("sagemaker")
    created = sagemaker.create_model(
        ModelName="first",
        ExecutionRoleArn=ROLE,
        PrimaryContainer={"Image": "repo/image:tag", "Environment": {"A": "é"}},
        Tags=[{"Key": "team", "Value": "one two"}],
    )
    assert created["ModelArn"].endswith(":model/first")
    assert created["ResponseMetadata"]["RequestId"]
    described = sagemaker.describe_model(ModelName="first")
    assert described["PrimaryContainer"]["Environment"] == {"A": "é"}
    assert described["CreationTime"] == datetime(2026, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)
    assert [model["ModelName"] for model in sagemaker.list_models()["Models"]] == ["first"]
    sagemaker.delete_model(ModelName="first")
    gone = failure(sagemaker.describe_model, ModelName="first")
    assert gone["Code"] == "ValidationException"
    assert gone["HTTPStatusCode"] == 400
    assert "Could not find model" in gone["Message"]


def test_the_endpoint_waiter_understands_us(served) -> None:
    sagemaker = served.client("sagemaker")
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="e")
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="e", DesiredWeightsAndCapacities=[{"VariantName": "v", "DesiredWeight": 0.5}]
    )
    sagemaker.delete_endpoint(EndpointName="e")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="e")


def test_an_operation_that_is_not_here_is_named(served) -> None:
    error = failure(
        served.client("application-autoscaling").get_predictive_scaling_forecast,
        ServiceNamespace="sagemaker",
        ResourceId="endpoint/e/variant/A",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        PolicyName="p",
        StartTime=0,
        EndTime=1,
    )
    assert error["Code"] == "UnknownOperationException"
    assert "GetPredictiveScalingForecast is not supported" in error["Message"]
    error = failure(served.client("iam").list_roles)
    assert error["Code"] == "UnknownOperationException"


@pytest.mark.parametrize(
    ("operation", "request_", "advice"),
    [
        ("CreatePipeline", {"PipelineName": "p", "RoleArn": ROLE}, "start their steps as jobs"),
        ("CreateExperiment", {"ExperimentName": "e"}, "a tracker of your own"),
        ("CreateArtifact", {"Source": {"SourceUri": "s"}, "ArtifactType": "t"}, "Lineage"),
        ("CreateModelPackageGroup", {"ModelPackageGroupName": "g"}, "keep artifacts in S3"),
        (
            "DescribeHubContent",
            {"HubName": "h", "HubContentType": "Model", "HubContentName": "m"},
            "JumpStart id",
        ),
        ("Search", {"Resource": "TrainingJob"}, "List operations"),
        ("DescribeInferenceExperiment", {"Name": "e"}, "two variants"),
        ("DescribeAIBenchmarkJob", {"AIBenchmarkJobName": "b"}, "/api/info lists"),
    ],
)
def test_what_sagemaker_has_more_comes_with_advice(
    served, operation: str, request_: dict[str, Any], advice: str
) -> None:
    error = failure(getattr(served.client("sagemaker"), xform_name(operation)), **request_)
    assert error["Code"] == "UnknownOperationException"
    assert f"{operation} is not supported" in error["Message"]
    assert advice in error["Message"]
    assert len(error["Message"]) < 300


def test_a_service_that_signs_as_sagemaker_is_named(served) -> None:
    store = served.client("sagemaker-featurestore-runtime", inject_host_prefix=False)
    wanted = {"FeatureGroupName": "f", "RecordIdentifierValueAsString": "1"}
    error = failure(store.get_record, **wanted)
    assert error["Code"] == "UnknownOperationException"
    assert "FeatureStore Runtime operation GetRecord" in error["Message"]
    assert "keep features in S3" in error["Message"]
    edge = served.client("sagemaker-edge", inject_host_prefix=False)
    heartbeat = {"AgentVersion": "1", "DeviceName": "d", "DeviceFleetName": "f"}
    assert "operation SendHeartbeat" in failure(edge.send_heartbeat, **heartbeat)["Message"]


def test_lists_of_what_cannot_be_here_are_empty(served) -> None:
    sagemaker = served.client("sagemaker")
    schedules = sagemaker.list_monitoring_schedules(EndpointName="e")
    assert schedules["MonitoringScheduleSummaries"] == []
    for name in EMPTY_LISTS:
        answer = getattr(sagemaker, xform_name(name))()
        answer.pop("ResponseMetadata")
        assert list(answer.values()) == [[]], name


def test_a_scalable_target_is_registered_and_described(served) -> None:
    scaling = served.client("application-autoscaling")
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/e/variant/A",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=3)
    (shown,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (shown["ResourceId"], shown["MinCapacity"]) == ("endpoint/e/variant/A", 1)
    refused = failure(scaling.register_scalable_target, **{**target, "ServiceNamespace": "x"})
    assert refused["Code"] == "ValidationException"
    assert "serviceNamespace" in refused["Message"]
    scaling.deregister_scalable_target(**target)


def test_who_am_i_and_may_i(served) -> None:
    identity = served.client("sts").get_caller_identity()
    assert identity["Account"] == "123456789012"
    assert identity["Arn"] == ("arn:aws:sts::123456789012:assumed-role/RidgelineExecution/RLAKTEST")
    iam = served.client("iam")
    role = iam.get_role(RoleName="RidgelineExecution")["Role"]
    assert role["Arn"] == ROLE
    trust = role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]
    assert trust == {"Service": "sagemaker.amazonaws.com"}
    decisions = iam.simulate_principal_policy(
        PolicySourceArn=ROLE, ActionNames=["s3:GetObject", "sagemaker:CreateModel"]
    )["EvaluationResults"]
    assert [(d["EvalActionName"], d["EvalDecision"]) for d in decisions] == [
        ("s3:GetObject", "allowed"),
        ("sagemaker:CreateModel", "allowed"),
    ]
    attached = iam.list_attached_role_policies(RoleName="RidgelineExecution")
    assert attached["AttachedPolicies"][0]["PolicyName"] == "AmazonSageMakerFullAccess"
    error = failure(iam.get_role, RoleName="Another")
    assert (error["Code"], error["HTTPStatusCode"]) == ("NoSuchEntity", 404)


@pytest.mark.parametrize("protocol", ["json", "query", "smithy-rpc-v2-cbor"])
def test_metrics_in_every_protocol(served, protocol, monkeypatch) -> None:
    monkeypatch.setattr("botocore.model.PRIORITY_ORDERED_SUPPORTED_PROTOCOLS", (protocol,))
    client = served.client("cloudwatch")
    assert client.meta.service_model.resolved_protocol == protocol
    space = f"Test/{protocol}"
    series = [{"Name": "Endpoint", "Value": "e"}]
    client.put_metric_data(
        Namespace=space,
        MetricData=[
            {
                "MetricName": "Latency",
                "Dimensions": series,
                "Timestamp": NOW + timedelta(seconds=second),
                "Value": float(second),
                "Unit": "Milliseconds",
            }
            for second in (1, 2, 61)
        ]
        + [
            {"MetricName": "Set", "Timestamp": NOW, "Values": [1.0, 5.0], "Counts": [3.0, 1.0]},
        ],
    )
    statistics = client.get_metric_statistics(
        Namespace=space,
        MetricName="Latency",
        Dimensions=series,
        StartTime=NOW,
        EndTime=NOW + timedelta(minutes=5),
        Period=60,
        Statistics=["Average", "SampleCount"],
        ExtendedStatistics=["p50"],
    )
    points = sorted(statistics["Datapoints"], key=lambda point: point["Timestamp"])
    assert [(p["Timestamp"], p["Average"], p["SampleCount"]) for p in points] == [
        (NOW, 1.5, 2.0),
        (NOW + timedelta(minutes=1), 61.0, 1.0),
    ]
    assert points[0]["ExtendedStatistics"] == {"p50": 1.0}
    assert points[0]["Unit"] == "Milliseconds"
    data = client.get_metric_data(
        MetricDataQueries=[
            {
                "Id": "a",
                "MetricStat": {
                    "Metric": {"Namespace": space, "MetricName": "Set"},
                    "Period": 60,
                    "Stat": "Average",
                },
            }
        ],
        StartTime=NOW,
        EndTime=NOW + timedelta(minutes=5),
    )["MetricDataResults"][0]
    assert (data["Id"], data["Values"], data["Timestamps"]) == ("a", [2.0], [NOW])
    listed = client.list_metrics(Namespace=space)["Metrics"]
    assert [(m["MetricName"], m["Dimensions"]) for m in listed] == [
        ("Latency", series),
        ("Set", []),
    ]
    error = failure(
        client.get_metric_statistics,
        Namespace=space,
        MetricName="Latency",
        StartTime=NOW,
        EndTime=NOW,
        Period=60,
        Statistics=["Sum"],
    )
    assert error["Code"] == "InvalidParameterCombination"
    assert error["HTTPStatusCode"] == 400


def test_alarms_by_the_client(served) -> None:
    client = served.client("cloudwatch")
    client.put_metric_alarm(
        AlarmName="high",
        Namespace="AWS/SageMaker",
        MetricName="ModelLatency",
        Dimensions=[{"Name": "EndpointName", "Value": "e"}],
        ExtendedStatistic="p99",
        Period=60,
        EvaluationPeriods=3,
        Threshold=2.5,
        ComparisonOperator="GreaterThanThreshold",
    )
    [alarm] = client.describe_alarms(AlarmNamePrefix="hi")["MetricAlarms"]
    assert (alarm["AlarmName"], alarm["Threshold"], alarm["StateValue"]) == ("high", 2.5, "OK")
    assert client.describe_alarm_history()["AlarmHistoryItems"] == []
    waiter = client.get_waiter("alarm_exists")
    waiter.wait(AlarmNames=["high"], WaiterConfig={"MaxAttempts": 1})
    client.set_alarm_state(AlarmName="high", StateValue="ALARM", StateReason="by hand")
    client.disable_alarm_actions(AlarmNames=["high"])
    client.delete_alarms(AlarmNames=["high"])
    assert client.describe_alarms()["MetricAlarms"] == []


def test_logs_page_in_both_directions(served, folder: Path) -> None:
    path = DataDir(folder).log_groups / "%2Faws%2Fsagemaker%2FEndpoints%2Fe" / "v%2Fr1.jsonl"
    path.parent.mkdir(parents=True)
    lines = [json.dumps({"t": 1000 + n, "m": f"line {n}"}) for n in range(10)]
    path.write_text("\n".join(lines) + '\n{"t": 9999, "m": "half')
    logs = served.client("logs")
    where = {"logGroupName": "/aws/sagemaker/Endpoints/e", "logStreamName": "v/r1"}
    first = logs.get_log_events(**where, startFromHead=True, limit=4)
    assert [event["message"] for event in first["events"]] == [f"line {n}" for n in range(4)]
    second = logs.get_log_events(**where, nextToken=first["nextForwardToken"])
    assert [event["timestamp"] for event in second["events"]] == [1004 + n for n in range(6)]
    end = logs.get_log_events(**where, nextToken=second["nextForwardToken"])
    assert end["events"] == []
    assert end["nextForwardToken"] == second["nextForwardToken"]
    newest = logs.get_log_events(**where, limit=3)
    assert [event["message"] for event in newest["events"]] == ["line 7", "line 8", "line 9"]
    older = logs.get_log_events(**where, nextToken=newest["nextBackwardToken"], limit=3)
    assert [event["message"] for event in older["events"]] == ["line 4", "line 5", "line 6"]
    assert logs.describe_log_groups(logGroupNamePrefix="/aws")["logGroups"][0]["logGroupName"]
    streams = logs.describe_log_streams(logGroupName=where["logGroupName"])["logStreams"]
    assert [(s["logStreamName"], s["lastEventTimestamp"]) for s in streams] == [("v/r1", 1009)]
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=where["logGroupName"],
        filterPattern="line -3",
        PaginationConfig={"PageSize": 4},
    )
    found = [event["message"] for page in pages for event in page["events"]]
    assert found == [f"line {n}" for n in range(10) if n != 3]


def test_a_stream_that_is_deleted_while_it_is_read_goes_on_with_what_is_written_since(
    served, folder: Path
) -> None:
    stream = DataDir(folder).log_groups / "begun-anew" / "s.jsonl"
    stream.parent.mkdir(parents=True)

    def write(word: str, *times: int) -> None:
        stream.write_text("".join(f'{{"t": {time}, "m": "{word}"}}\n' for time in times))

    write("old", 1, 2, 3)
    logs, group = served.client("logs"), {"logGroupName": "begun-anew"}
    where = {**group, "logStreamName": "s"}
    token = {"nextToken": logs.get_log_events(**where, startFromHead=True)["nextForwardToken"]}
    filtered = logs.filter_log_events(**group, limit=2)
    logs.delete_log_stream(**where)
    assert failure(logs.get_log_events, **where, **token)["Code"] == "ResourceNotFoundException"
    write("new", 4)
    page = logs.get_log_events(**where, **token)
    assert [event["message"] for event in page["events"]] == ["new"]
    write("new", 4, 5, 6)
    page = logs.get_log_events(**where, nextToken=page["nextForwardToken"])
    assert [event["timestamp"] for event in page["events"]] == [5, 6]
    rest = logs.filter_log_events(**group, nextToken=filtered["nextToken"])
    assert [event["timestamp"] for event in rest["events"]] == [4, 5, 6]


def test_logs_are_kept_as_long_as_is_asked_and_deleted(served, folder: Path) -> None:
    streams = DataDir(folder).log_groups / "g"
    streams.mkdir(parents=True)
    for name in ("a", "b"):
        (streams / f"{name}.jsonl").write_text('{"t": 1, "m": "x"}\n')
    logs, group = served.client("logs"), {"logGroupName": "g"}

    def shown() -> list[dict[str, Any]]:
        found = logs.describe_log_groups(logGroupNamePrefix="g")["logGroups"]
        return [{"days": each.get("retentionInDays")} for each in found]

    logs.put_retention_policy(**group, retentionInDays=7)
    assert shown() == [{"days": 7}]
    error = failure(logs.put_retention_policy, **group, retentionInDays=2)
    assert error["Code"] == "InvalidParameterException"
    assert "1, 3, 5, 7" in error["Message"]
    logs.delete_retention_policy(**group)
    assert shown() == [{"days": None}]
    logs.delete_log_stream(**group, logStreamName="a")
    left = logs.describe_log_streams(**group)["logStreams"]
    assert [each["logStreamName"] for each in left] == ["b"]
    logs.delete_log_group(**group)
    assert shown() == []
    for call in (
        partial(logs.delete_log_group, **group),
        partial(logs.delete_log_stream, **group, logStreamName="b"),
        partial(logs.put_retention_policy, **group, retentionInDays=7),
        partial(logs.delete_retention_policy, **group),
    ):
        assert failure(call)["Code"] == "ResourceNotFoundException"
    error = failure(logs.get_log_events, logGroupName="/none", logStreamName="x")
    assert error["Code"] == "ResourceNotFoundException"


def test_large_metric_calls_come_compressed(served) -> None:
    client = served.client("cloudwatch")
    sent: list[str] = []
    client.meta.events.register(
        "before-send", lambda request, **_: sent.append(request.headers.get("Content-Encoding"))
    )
    datums = [{"MetricName": f"M{n}" + "x" * 50, "Value": 1.0} for n in range(300)]
    client.put_metric_data(Namespace="Large", MetricData=datums)
    assert sent == [b"gzip"] or sent == ["gzip"]
    listed = client.get_paginator("list_metrics").paginate(Namespace="Large")
    assert sum(len(page["Metrics"]) for page in listed) == 300


def _query(**changes: Any) -> dict[str, Any]:
    stat = {"Metric": {"Namespace": "N", "MetricName": "M"}, "Period": 60, "Stat": "Sum"}
    return {"Id": "a", "MetricStat": stat | changes}


@pytest.mark.parametrize(
    "query",
    [_query(Period=7), _query(Period=90), _query() | {"Id": "Capital"}, _query() | {"Id": "a-b"}],
)
def test_metric_queries_that_cloudwatch_does_not_take(served, query: dict[str, Any]) -> None:
    client = served.client("cloudwatch")
    span = {"StartTime": NOW, "EndTime": NOW + timedelta(minutes=5)}
    error = failure(client.get_metric_data, MetricDataQueries=[query], **span)
    assert error["Code"] == "InvalidParameterValue"


@pytest.mark.parametrize(("count", "taken"), [(500, True), (501, False)])
def test_as_many_metric_queries_as_cloudwatch_takes(served, count: int, taken: bool) -> None:
    stat = {"Metric": {"Namespace": "N", "MetricName": "M"}, "Period": 60, "Stat": "Sum"}
    asked = {
        "MetricDataQueries": [{"Id": f"q{number}", "MetricStat": stat} for number in range(count)],
        "StartTime": NOW,
        "EndTime": NOW + timedelta(minutes=5),
    }
    client = served.client("cloudwatch")
    if taken:
        assert len(client.get_metric_data(**asked)["MetricDataResults"]) == count
    else:
        error = failure(client.get_metric_data, **asked)
        assert error["Code"] == "InvalidParameterValue"
        assert "501" in error["Message"]


@pytest.mark.parametrize("period", [1, 5, 10, 20, 30, 60, 300])
def test_metric_periods_that_it_takes(served, period: int) -> None:
    client = served.client("cloudwatch")
    span = {"StartTime": NOW, "EndTime": NOW + timedelta(minutes=5)}
    asked = {"Namespace": "N", "MetricName": "M", "Statistics": ["Sum"]}
    assert client.get_metric_statistics(**asked, **span, Period=period)["Datapoints"] == []
    error = failure(client.get_metric_statistics, **asked, **span, Period=period * 60 + 7)
    assert error["Code"] == "InvalidParameterValue"


def test_a_log_window_that_ends_before_it_starts(served) -> None:
    error = failure(
        served.client("logs").filter_log_events, logGroupName="/g", startTime=2000, endTime=1000
    )
    assert error["Code"] == "InvalidParameterException"
