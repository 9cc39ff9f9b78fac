"""Unmodified boto3 against a running service: the whole life of an endpoint."""

from __future__ import annotations

import json
import threading
import urllib.request
import uuid
from collections.abc import Iterator

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from ridgeline_testing import DJL_IMAGE, Service, until, variant

pytestmark = pytest.mark.e2e
ENDPOINT = "boto3-tiny"


@pytest.fixture(scope="module")
def endpoint(service: Service) -> Iterator[str]:
    service.deploy(ENDPOINT)
    yield ENDPOINT
    service.delete(ENDPOINT)


def test_describe_and_list(service: Service, endpoint: str) -> None:
    sagemaker = service.client("sagemaker")
    described = sagemaker.describe_endpoint(EndpointName=endpoint)
    assert described["EndpointStatus"] == "InService"
    [production] = described["ProductionVariants"]
    assert production["CurrentInstanceCount"] == 1
    assert production["DeployedImages"][0]["SpecifiedImage"] == DJL_IMAGE
    names = [e["EndpointName"] for e in sagemaker.list_endpoints(NameContains="tiny")["Endpoints"]]
    assert endpoint in names
    model = sagemaker.describe_model(ModelName=endpoint)
    assert model["PrimaryContainer"]["Environment"]["HF_MODEL_ID"] == "tiny-llama-seeded"


def test_invoke(service: Service, endpoint: str) -> None:
    runtime = service.client("sagemaker-runtime")
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 8, "do_sample": False}}
    answers = []
    for _ in range(2):
        answer = runtime.invoke_endpoint(
            EndpointName=endpoint, ContentType="application/json", Body=json.dumps(body)
        )
        assert answer["InvokedProductionVariant"] == "AllTraffic"
        answers.append(json.loads(answer["Body"].read())["generated_text"])
    assert answers[0] == answers[1]


def test_stream_comes_in_parts(service: Service, endpoint: str) -> None:
    runtime = service.client("sagemaker-runtime")
    # So many tokens that a busy machine does not read them all at once.
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 400}, "stream": True}
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName=endpoint, ContentType="application/json", Body=json.dumps(body)
    )
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    lines = [json.loads(part) for part in parts]  # Clients read each as one document.
    assert len(parts) > 2
    assert "generated_text" in lines[-1]


def test_async(service: Service) -> None:
    sagemaker, s3 = service.client("sagemaker"), service.client("s3")
    bucket = "async-bucket"
    s3.create_bucket(Bucket=bucket)
    name = "boto3-async"
    sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=service.role,
        PrimaryContainer={"Image": DJL_IMAGE, "Environment": {"HF_MODEL_ID": "tiny-llama-seeded"}},
    )
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[variant(name)],
        AsyncInferenceConfig={
            "OutputConfig": {
                "S3OutputPath": f"s3://{bucket}/out",
                "S3FailurePath": f"s3://{bucket}/failed",
            }
        },
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    service.wait_in_service(name)
    s3.put_object(
        Bucket=bucket,
        Key="in/good.json",
        Body=json.dumps({"inputs": "Hello", "parameters": {"max_new_tokens": 4}}),
        ContentType="application/json",
    )
    s3.put_object(Bucket=bucket, Key="in/bad.json", Body="{", ContentType="application/json")
    runtime = service.client("sagemaker-runtime")
    good = runtime.invoke_endpoint_async(
        EndpointName=name, InputLocation=f"s3://{bucket}/in/good.json"
    )
    bad = runtime.invoke_endpoint_async(
        EndpointName=name, InputLocation=f"s3://{bucket}/in/bad.json"
    )
    assert "generated_text" in json.loads(wait_object(s3, good["OutputLocation"]))
    assert wait_object(s3, bad["FailureLocation"])
    service.delete(name)


def wait_object(s3, uri: str) -> bytes:
    bucket, _, key = uri.removeprefix("s3://").partition("/")

    def there() -> bool:
        return s3.list_objects_v2(Bucket=bucket, Prefix=key).get("KeyCount", 0) > 0

    until(there, 30)
    body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def test_unknown_endpoint(service: Service) -> None:
    with pytest.raises(ClientError, match="not found") as caught:
        service.client("sagemaker-runtime").invoke_endpoint(EndpointName="nope", Body=b"{}")
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    with pytest.raises(ClientError, match="Could not find endpoint") as caught:
        service.client("sagemaker").describe_endpoint(EndpointName="nope")
    assert caught.value.response["Error"]["Code"] == "ValidationException"


@pytest.mark.parametrize("name", ["sagemaker", "s3", "sts", "logs", "sagemaker-runtime"])
@pytest.mark.parametrize("wrong", ["id", "secret"])
def test_a_wrong_key_is_refused(service: Service, name: str, wrong: str) -> None:
    key = service.variables["AWS_ACCESS_KEY_ID"]
    secret = service.variables["AWS_SECRET_ACCESS_KEY"]
    client = boto3.client(
        name,
        endpoint_url=service.url,
        region_name="us-east-1",
        aws_access_key_id="AKIAWRONG" if wrong == "id" else key,
        aws_secret_access_key="wrong" if wrong == "secret" else secret,
        config=Config(retries={"total_max_attempts": 1}),
    )
    calls = {
        "sagemaker": lambda: client.list_models(),
        "s3": lambda: client.list_buckets(),
        "sts": lambda: client.get_caller_identity(),
        "logs": lambda: client.describe_log_groups(),
        "sagemaker-runtime": lambda: client.invoke_endpoint(EndpointName="e", Body=b""),
    }
    with pytest.raises(ClientError) as caught:
        calls[name]()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_tampered_request_is_refused(service: Service) -> None:
    sagemaker = service.client("sagemaker")

    def tamper(request, **_: object) -> None:
        request.body = request.body.replace(b"original", b"tampered")
        request.headers["Content-Length"] = str(len(request.body))

    sagemaker.meta.events.register("before-send.sagemaker.*", tamper)
    with pytest.raises(ClientError) as caught:
        sagemaker.create_model(
            ModelName="original",
            ExecutionRoleArn=service.role,
            PrimaryContainer={"Image": DJL_IMAGE},
        )
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert sagemaker_names(service, "tampered") == []


def sagemaker_names(service: Service, contains: str) -> list[str]:
    models = service.client("sagemaker").list_models(NameContains=contains)["Models"]
    return [model["ModelName"] for model in models]


def test_a_hundred_requests_at_once(service: Service, endpoint: str) -> None:
    runtime = service.client("sagemaker-runtime")
    outcomes: list[str] = []

    def ask(number: int) -> None:
        body = {"inputs": f"Number {number}", "parameters": {"max_new_tokens": 8}}
        try:
            answer = runtime.invoke_endpoint(
                EndpointName=endpoint, ContentType="application/json", Body=json.dumps(body)
            )
            json.loads(answer["Body"].read())["generated_text"]
            outcomes.append("answered")
        except ClientError as error:
            outcomes.append(str(error.response["ResponseMetadata"]["HTTPStatusCode"]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 100
    assert set(outcomes) <= {"answered", "429"}
    assert outcomes.count("answered") > 0


def test_a_failed_endpoint_says_why_and_can_be_deleted(service: Service) -> None:
    sagemaker = service.client("sagemaker")
    name = f"broken-{uuid.uuid4().hex[:6]}"
    sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=service.role,
        PrimaryContainer={
            "Image": DJL_IMAGE,
            "Environment": {"HF_MODEL_ID": "tiny-llama-seeded", "OPTION_DTYPE": "int3"},
        },
    )
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant(name)])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    until(lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "Failed", 90)
    reason = sagemaker.describe_endpoint(EndpointName=name)["FailureReason"]
    assert "OPTION_DTYPE" in reason
    service.delete(name)
    until(
        lambda: (
            name
            not in [
                e["EndpointName"] for e in sagemaker.list_endpoints(NameContains=name)["Endpoints"]
            ]
        ),
        30,
    )


def test_logs_of_a_replica(service: Service, endpoint: str) -> None:
    logs = service.client("logs")
    group = f"/aws/sagemaker/Endpoints/{endpoint}"
    [stream] = logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert stream["logStreamName"].startswith("AllTraffic/")
    events = logs.get_log_events(
        logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
    )
    assert events["events"]


def test_a_scalable_target_is_held_within_its_bounds(service: Service, endpoint: str) -> None:
    scaling, sagemaker = service.client("application-autoscaling"), service.client("sagemaker")
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }

    def instances() -> int:
        described = sagemaker.describe_endpoint(EndpointName=endpoint)
        return int(described["ProductionVariants"][0]["CurrentInstanceCount"])

    def statuses() -> list[str]:
        found = scaling.describe_scaling_activities(ServiceNamespace="sagemaker")
        return [activity["StatusCode"] for activity in found["ScalingActivities"]]

    for low, high in ((2, 3), (1, 1)):
        scaling.register_scalable_target(**target, MinCapacity=low, MaxCapacity=high)
        until(lambda: instances() == low, 90)  # noqa: B023 - called at once
    until(lambda: statuses() == ["Successful"] * 2, 30)
    scaling.deregister_scalable_target(**target)


def test_an_alarm_that_rings_scales_in_steps(service: Service, endpoint: str) -> None:
    scaling, cloudwatch = service.client("application-autoscaling"), service.client("cloudwatch")
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=2)
    steps = [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}]
    policy = scaling.put_scaling_policy(
        **target,
        PolicyName="one-more",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "StepAdjustments": steps,
        },
    )
    cloudwatch.put_metric_alarm(
        AlarmName="busy",
        Namespace="Mine",
        MetricName="Queue",
        Statistic="Maximum",
        Period=10,
        EvaluationPeriods=1,
        Threshold=5,
        ComparisonOperator="GreaterThanThreshold",
        AlarmActions=[policy["PolicyARN"]],
    )
    cloudwatch.put_metric_data(Namespace="Mine", MetricData=[{"MetricName": "Queue", "Value": 9}])

    def instances() -> int:
        described = service.client("sagemaker").describe_endpoint(EndpointName=endpoint)
        return int(described["ProductionVariants"][0]["CurrentInstanceCount"])

    until(lambda: instances() == 2, 90)
    summaries = [
        item["HistorySummary"]
        for item in cloudwatch.describe_alarm_history(AlarmName="busy")["AlarmHistoryItems"]
    ]
    assert "Alarm updated from INSUFFICIENT_DATA to ALARM" in summaries
    cloudwatch.delete_alarms(AlarmNames=["busy"])
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=1)
    until(lambda: instances() == 1, 90)
    scaling.deregister_scalable_target(**target)


def test_temporary_credentials_do_what_their_key_does(service: Service, endpoint: str) -> None:
    sts = service.client("sts")
    got = sts.assume_role(RoleArn=service.role, RoleSessionName="nightly")["Credentials"]

    def client(name: str, token: str = got["SessionToken"], signature: str | None = None):
        return boto3.client(
            name,
            endpoint_url=service.url,
            region_name="us-east-1",
            aws_access_key_id=got["AccessKeyId"],
            aws_secret_access_key=got["SecretAccessKey"],
            aws_session_token=token,
            config=Config(signature_version=signature, retries={"total_max_attempts": 1}),
        )

    described = client("sagemaker").describe_endpoint(EndpointName=endpoint)
    assert described["EndpointStatus"] == "InService"
    answer = client("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, Body=json.dumps({"inputs": "Hello"})
    )
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    where = {"Bucket": f"of-a-session-{uuid.uuid4().hex[:8]}", "Key": "k"}
    client("s3").create_bucket(Bucket=where["Bucket"])
    client("s3").put_object(**where, Body=b"v" * 100_000)
    for signature in ("s3", "s3v4"):
        link = client("s3", signature=signature).generate_presigned_url("get_object", Params=where)
        with urllib.request.urlopen(link) as response:
            assert response.read() == b"v" * 100_000
    assert client("sts").get_caller_identity()["Arn"].endswith("/nightly")
    with pytest.raises(ClientError, match="Cannot call GetSessionToken"):
        client("sts").get_session_token()
    with pytest.raises(ClientError, match="security token included in the request is invalid"):
        client("sagemaker", token=got["SessionToken"][:-4]).list_endpoints()
