"""LMI's way to deploy: an archive of nothing but a serving.properties that names the model."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from ridgeline_testing import DJL_IMAGE, Service, variant

pytestmark = pytest.mark.e2e

NAME = "named-in-properties"
PROPERTIES = b"engine=Python\noption.model_id=tiny-llama-seeded\noption.max_model_len=64\n"


def test_the_model_that_serving_properties_name_is_deployed(service: Service) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("serving.properties")
        member.size = len(PROPERTIES)
        archive.addfile(member, io.BytesIO(PROPERTIES))
    service.client("s3").create_bucket(Bucket=NAME)
    service.client("s3").put_object(Bucket=NAME, Key="model.tar.gz", Body=packed.getvalue())
    sagemaker = service.client("sagemaker")
    sagemaker.create_model(
        ModelName=NAME,
        ExecutionRoleArn=service.role,
        PrimaryContainer={"Image": DJL_IMAGE, "ModelDataUrl": f"s3://{NAME}/model.tar.gz"},
    )
    sagemaker.create_endpoint_config(EndpointConfigName=NAME, ProductionVariants=[variant(NAME)])
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
    service.wait_in_service(NAME)

    def says(tokens: int) -> dict:
        body = {"prompt": "x", "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        answer = service.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=NAME, ContentType="application/json", Body=json.dumps(body)
        )
        return json.load(answer["Body"])

    answer = says(1000)
    assert answer["model"] == "tiny-llama-seeded"
    assert answer["usage"]["total_tokens"] == 64
    service.delete(NAME)
