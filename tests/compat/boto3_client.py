"""boto3, unmodified: the life of an endpoint, streams, asynchronous calls, and refusals."""

from __future__ import annotations

import json
import os
import time

import boto3
from botocore.exceptions import ClientError

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.30.0-lmi12.0.0-cu124"
NAME = f"boto3-{os.getpid()}"
BODY = json.dumps({"inputs": "The capital of France is", "parameters": {"max_new_tokens": 8}})
REQUEST = {"EndpointName": NAME, "ContentType": "application/json"}


def main() -> None:
    sagemaker, runtime, s3 = (boto3.client(n) for n in ("sagemaker", "sagemaker-runtime", "s3"))
    deploy(sagemaker, s3)
    described = sagemaker.describe_endpoint(EndpointName=NAME)
    assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    listed = sagemaker.list_endpoints(NameContains=NAME)["Endpoints"]
    assert [endpoint["EndpointName"] for endpoint in listed] == [NAME]
    assert b"Paris" in runtime.invoke_endpoint(Body=BODY, **REQUEST)["Body"].read()
    stream = json.dumps(json.loads(BODY) | {"stream": True})
    parts = runtime.invoke_endpoint_with_response_stream(Body=stream, **REQUEST)["Body"]
    assert sum(1 for _ in parts) > 2
    asynchronous(runtime, s3)
    scaled(sagemaker)
    refusals(sagemaker)
    for delete, field in (
        (sagemaker.delete_endpoint, "EndpointName"),
        (sagemaker.delete_endpoint_config, "EndpointConfigName"),
        (sagemaker.delete_model, "ModelName"),
    ):
        delete(**{field: NAME})
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=NAME)
    print("boto3: created, described, listed, invoked, streamed, async, scaled, refused, deleted")


def deploy(sagemaker, s3) -> None:
    s3.create_bucket(Bucket=NAME)
    sagemaker.create_model(
        ModelName=NAME,
        ExecutionRoleArn=os.environ["RIDGELINE_ROLE_ARN"],
        PrimaryContainer={
            "Image": IMAGE,
            "Environment": {"HF_MODEL_ID": "smollm2-135m-instruct"},
        },
    )
    variant = {"VariantName": "v", "ModelName": NAME, "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(
        EndpointConfigName=NAME,
        ProductionVariants=[variant | {"InitialInstanceCount": 1}],
        AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": f"s3://{NAME}/out"}},
    )
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
    waiter = sagemaker.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 180})


def asynchronous(runtime, s3) -> None:
    s3.put_object(Bucket=NAME, Key="in.json", Body=BODY, ContentType="application/json")
    accepted = runtime.invoke_endpoint_async(
        EndpointName=NAME, InputLocation=f"s3://{NAME}/in.json"
    )
    key = accepted["OutputLocation"].removeprefix(f"s3://{NAME}/")
    s3.get_waiter("object_exists").wait(
        Bucket=NAME, Key=key, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    assert b"Paris" in s3.get_object(Bucket=NAME, Key=key)["Body"].read()


def scaled(sagemaker) -> None:
    scaling = boto3.client("application-autoscaling")
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{NAME}/variant/v",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.register_scalable_target(**target, MinCapacity=2, MaxCapacity=3)
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    policy = {"TargetValue": 1000.0, "PredefinedMetricSpecification": metric}
    scaling.put_scaling_policy(
        **target,
        PolicyName="p",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=policy,
    )
    found = {"ServiceNamespace": "sagemaker", "ResourceId": target["ResourceId"]}
    for _ in range(120):
        activities = scaling.describe_scaling_activities(**found)["ScalingActivities"]
        if activities and activities[0]["StatusCode"] != "InProgress":
            break
        time.sleep(1)
    assert activities[0]["StatusCode"] == "Successful", activities
    variant = sagemaker.describe_endpoint(EndpointName=NAME)["ProductionVariants"][0]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (2, 2)
    assert len(scaling.describe_scaling_policies(**found)["ScalingPolicies"]) == 1
    scaling.deregister_scalable_target(**target)
    assert not scaling.describe_scaling_policies(**found)["ScalingPolicies"]


def refusals(sagemaker) -> None:
    stranger = boto3.client("sagemaker", aws_secret_access_key="wrong", aws_access_key_id="wrong")
    assert status(lambda: stranger.list_models()) == 403

    def tamper(request, **_) -> None:
        request.body = request.body.replace(b"original", b"tampered")

    sagemaker.meta.events.register("before-send.sagemaker.DeleteModel", tamper)
    assert status(lambda: sagemaker.delete_model(ModelName="original")) == 403
    sagemaker.meta.events.unregister("before-send.sagemaker.DeleteModel", tamper)


def status(call) -> int:
    try:
        call()
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    return 200


if __name__ == "__main__":
    main()
