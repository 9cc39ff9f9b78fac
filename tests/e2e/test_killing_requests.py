"""A request that no model server survives, from a client that repeats what fails."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError
from ridgeline_testing import PYTORCH_IMAGE, Service, until, variant

pytestmark = pytest.mark.e2e
ENDPOINT = "mortal"
INFERENCE = """
import json
import os


def model_fn(model_dir):
    return None


def transform_fn(model, body, content_type, accept):
    if "die" in json.loads(body):
        os._exit(3)
    return body, "application/json"
"""


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        info = tarfile.TarInfo("code/inference.py")
        info.size = len(INFERENCE)
        packed.addfile(info, io.BytesIO(INFERENCE.encode()))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def endpoint(service: Service) -> Iterator[str]:
    s3, sagemaker = service.client("s3"), service.client("sagemaker")
    s3.create_bucket(Bucket=ENDPOINT)
    s3.put_object(Bucket=ENDPOINT, Key="model.tar.gz", Body=archive())
    sagemaker.create_model(
        ModelName=ENDPOINT,
        ExecutionRoleArn=service.role,
        PrimaryContainer={
            "Image": PYTORCH_IMAGE,
            "ModelDataUrl": f"s3://{ENDPOINT}/model.tar.gz",
            "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
        },
    )
    sagemaker.create_endpoint_config(
        EndpointConfigName=ENDPOINT, ProductionVariants=[variant(ENDPOINT, count=2)]
    )
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)
    service.wait_in_service(ENDPOINT, timeout_s=400)
    yield ENDPOINT
    service.delete(ENDPOINT)


def replicas(service: Service, status: str) -> int:
    shown = json.loads(service.cli("describe", ENDPOINT, "--json").stdout)
    return [each["status"] for each in shown["Ridgeline"]["replicas"]].count(status)


def test_the_endpoint_outlives_it(service: Service, endpoint: str) -> None:
    runtime = service.client("sagemaker-runtime", retries=4)

    def ask(body: dict[str, int]) -> object:
        answer = runtime.invoke_endpoint(
            EndpointName=endpoint, ContentType="application/json", Body=json.dumps(body)
        )
        return json.load(answer["Body"])

    for deaths in (2, 3, 4):
        with pytest.raises(ClientError) as killed:
            ask({"die": 1})
        assert killed.value.response["Error"]["Code"] == "ModelError"
        assert "ridgeline logs mortal" in str(killed.value)
        until(lambda deaths=deaths: replicas(service, "failed") == deaths, 20)
        assert ask({"x": deaths}) == {"x": deaths}
    until(lambda: replicas(service, "ready") == 2, 60)
    service.wait_in_service(endpoint, timeout_s=1)
