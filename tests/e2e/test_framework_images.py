"""A user's ``inference.py`` behind the PyTorch image: its own environment, its own /opt/ml."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError
from ridgeline_testing import PYTORCH_IMAGE, Service, until, variant

pytestmark = pytest.mark.e2e
ENDPOINT = "framework"
INFERENCE = """
import json, os, sys
from pathlib import Path

import torch


def model_fn(model_dir):
    assert model_dir == "/opt/ml/model"
    weight = json.loads((Path(model_dir) / "weight.json").read_text())
    return torch.nn.Parameter(torch.tensor(weight), requires_grad=False)


def input_fn(body, content_type):
    if content_type != "application/json":
        raise ValueError("wants application/json")
    return json.loads(body)


def predict_fn(data, model):
    if data.get("fail"):
        raise RuntimeError("asked to fail")
    return {
        "y": (torch.tensor(data["x"]) * model).tolist(),
        "home": os.environ["HOME"],
        "keys": sorted(name for name in os.environ if name.startswith("AWS_SECRET")),
        "sees": sorted(str(p) for p in Path(os.environ["SECRET_DIR"]).glob("*")),
        "service_packages": any("ridgeline" in path for path in sys.path),
    }


def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""


def model_archive(weight: float) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in (
            ("code/inference.py", INFERENCE),
            ("weight.json", json.dumps(weight)),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def create(service: Service, name: str, archive: bytes) -> None:
    s3 = service.client("s3")
    s3.create_bucket(Bucket="framework-models")
    s3.put_object(Bucket="framework-models", Key=f"{name}/model.tar.gz", Body=archive)
    sagemaker = service.client("sagemaker")
    sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=service.role,
        PrimaryContainer={
            "Image": PYTORCH_IMAGE,
            "ModelDataUrl": f"s3://framework-models/{name}/model.tar.gz",
            "Environment": {
                "SAGEMAKER_PROGRAM": "inference.py",
                "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
                "SECRET_DIR": str(service.data_dir),
            },
        },
    )
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant(name)])


@pytest.fixture(scope="module")
def endpoint(service: Service) -> Iterator[str]:
    create(service, ENDPOINT, model_archive(2.0))
    service.client("sagemaker").create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)
    service.wait_in_service(ENDPOINT, timeout_s=400)
    yield ENDPOINT
    service.delete(ENDPOINT)


def invoke(service: Service, endpoint: str, body: object) -> dict:
    answer = service.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, ContentType="application/json", Body=json.dumps(body)
    )
    result: dict = json.loads(answer["Body"].read())
    return result


def test_runs_the_users_code_in_a_room_of_its_own(service: Service, endpoint: str) -> None:
    answer = invoke(service, endpoint, {"x": [1.0, 2.0]})
    assert answer["y"] == [2.0, 4.0]
    assert answer["keys"] == []
    assert answer["sees"] == []
    assert not answer["service_packages"]


def test_the_users_exception_is_a_model_error(service: Service, endpoint: str) -> None:
    with pytest.raises(ClientError) as caught:
        invoke(service, endpoint, {"fail": True})
    assert caught.value.response["Error"]["Code"] == "ModelError"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert caught.value.response["OriginalStatusCode"] == 500
    assert "asked to fail" in caught.value.response["OriginalMessage"]


def test_blue_green_update_fails_no_request(service: Service, endpoint: str) -> None:
    create(service, "framework-v2", model_archive(3.0))
    sagemaker = service.client("sagemaker", retries=2)
    sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName="framework-v2")
    seen = []

    def updated() -> bool:
        seen.append(invoke(service, endpoint, {"x": [1.0]})["y"][0])
        status = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"]
        return bool(status == "InService" and seen[-1] == 3.0)

    until(updated, 90, every_s=0.01)
    assert set(seen) == {2.0, 3.0}
    assert seen == sorted(seen), "an answer of the old version came after one of the new"


def test_a_canary_shares_the_traffic_and_fails_no_request(service: Service, endpoint: str) -> None:
    create(service, "framework-v3", model_archive(4.0))
    before = invoke(service, endpoint, {"x": [1.0]})["y"][0]
    sagemaker = service.client("sagemaker", retries=2)
    size = {"Type": "CAPACITY_PERCENT", "Value": 25}
    routing = {"Type": "CANARY", "CanarySize": size, "WaitIntervalInSeconds": 4}
    policy = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 3}
    sagemaker.update_endpoint(
        EndpointName=endpoint,
        EndpointConfigName="framework-v3",
        DeploymentConfig={"BlueGreenUpdatePolicy": policy},
    )
    seen: dict[float, list[float]] = {}

    def updated() -> bool:
        described = sagemaker.describe_endpoint(EndpointName=endpoint)
        answer = invoke(service, endpoint, {"x": [1.0]})["y"][0]
        pending = described.get("PendingDeploymentSummary", {}).get("ProductionVariants")
        if pending:
            seen.setdefault(pending[0]["CurrentWeight"], []).append(answer)
        return bool(described["EndpointStatus"] == "InService" and answer == 4.0)

    until(updated, 90, every_s=0.01)
    assert list(seen) == [0.0, 0.25, 1.0]
    canary = seen[0.25]
    assert set(canary) == {before, 4.0}
    # The step may end between a description and the request that follows it.
    assert abs(canary.count(4.0) - len(canary) / 4) <= 2
    assert set(seen[1.0]) == {4.0}, "the old fleet stands by"


def test_a_bad_update_leaves_the_old_version(service: Service, endpoint: str) -> None:
    create(service, "framework-bad", b"this is no archive")
    before = invoke(service, endpoint, {"x": [1.0]})["y"]
    sagemaker = service.client("sagemaker", retries=2)
    sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName="framework-bad")
    statuses = []

    def back() -> bool:
        assert invoke(service, endpoint, {"x": [1.0]})["y"] == before
        described = sagemaker.describe_endpoint(EndpointName=endpoint)
        statuses.append(described["EndpointStatus"])
        return bool(statuses[-1] == "InService")

    until(back, 90, every_s=0.02)
    assert sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"] != (
        "framework-bad"
    )


def test_an_unknown_image_is_refused_with_the_known_ones(service: Service) -> None:
    sagemaker = service.client("sagemaker")
    sagemaker.create_model(
        ModelName="unknown-image",
        ExecutionRoleArn=service.role,
        PrimaryContainer={"Image": "1.dkr.ecr.us-east-1.amazonaws.com/mystery:1"},
    )
    sagemaker.create_endpoint_config(
        EndpointConfigName="unknown-image", ProductionVariants=[variant("unknown-image")]
    )
    with pytest.raises(ClientError, match=r"mystery.*pytorch-inference"):
        sagemaker.create_endpoint(EndpointName="unknown-image", EndpointConfigName="unknown-image")
