"""What of an endpoint configuration the gateway is told."""

from __future__ import annotations


def test_async_config_reaches_the_route(world):
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
            "AsyncInferenceConfig": {
                "OutputConfig": {"S3OutputPath": "s3://b/out", "S3FailurePath": "s3://b/bad"},
                "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 7},
            },
        }
    )
    world.endpoint("e", "c")
    world.settle()
    route = world.route("e").asynchronous
    assert route is not None
    assert (route.output_path, route.failure_path) == ("s3://b/out", "s3://b/bad")
    assert route.max_concurrent == 7
    assert world.describe("e")["AsyncInferenceConfig"]["OutputConfig"]["S3OutputPath"]


def test_data_capture_reaches_the_route_once_the_endpoint_serves(world):
    world.model("m")
    variant = {"VariantName": "A", "ModelName": "m"}
    variant |= {"InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    wanted = {
        "InitialSamplingPercentage": 40,
        "DestinationS3Uri": "s3://b/kept/",
        "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["Application/JSON"]},
    }
    for name, capture in (("on", wanted), ("off", {**wanted, "EnableCapture": False})):
        world.plane.endpoint_configs.create(
            {
                "EndpointConfigName": name,
                "ProductionVariants": [variant],
                "DataCaptureConfig": capture,
            }
        )
        world.endpoint(name, name)
        assert world.describe(name)["DataCaptureConfig"]["CaptureStatus"] == "Stopped"
    world.settle()
    assert [variant.capture for variant in world.route("off").variants] == [None]
    assert world.describe("off")["DataCaptureConfig"]["CaptureStatus"] == "Stopped"
    [route] = [variant.capture for variant in world.route("on").variants]
    assert (route.destination, route.percent) == ("s3://b/kept", 40)
    assert (route.input, route.output) == (True, True)
    assert (route.csv_types, route.json_types) == ((), ("application/json",))
    assert world.describe("on")["DataCaptureConfig"]["CaptureStatus"] == "Started"
