"""AWS's sagemaker SDK v3, unmodified: sagemaker-core resources and ModelBuilder."""

from __future__ import annotations

import io
import json
import os
import tarfile
import uuid

import boto3
from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.shapes import ContainerDefinition, ProductionVariant
from sagemaker.serve import InferenceSpec, ModelBuilder
from sagemaker.serve.builder.schema_builder import SchemaBuilder
from sagemaker.serve.utils.types import ModelServer

IMAGE = (
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/"
    "pytorch-inference:2.6.0-cpu-py312-ubuntu22.04-sagemaker"
)
INFERENCE = b"""
import json


def model_fn(model_dir):
    return 4.0


def input_fn(body, content_type):
    return json.loads(body)


def predict_fn(data, model):
    return {"y": [x * model for x in data["x"]]}


def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""
ENVIRONMENT = {
    "SAGEMAKER_PROGRAM": "inference.py",
    "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
}


def main() -> None:
    data = upload()
    role = os.environ["RIDGELINE_ROLE_ARN"]
    core(data, role)
    builder(data, role)
    inference_spec()
    if "AWS_ENDPOINT_URL" not in os.environ:
        jumpstart()


def upload() -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("code/inference.py")
        info.size = len(INFERENCE)
        archive.addfile(info, io.BytesIO(INFERENCE))
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="compat-v3")
    s3.put_object(Bucket="compat-v3", Key="model.tar.gz", Body=buffer.getvalue())
    return "s3://compat-v3/model.tar.gz"


def core(data: str, role: str) -> None:
    name = f"core-{uuid.uuid4().hex[:8]}"
    model = Model.create(
        model_name=name,
        primary_container=ContainerDefinition(
            image=IMAGE, model_data_url=data, environment=ENVIRONMENT
        ),
        execution_role_arn=role,
    )
    config = EndpointConfig.create(
        endpoint_config_name=name,
        production_variants=[
            ProductionVariant(
                variant_name="v1",
                model_name=name,
                initial_instance_count=1,
                instance_type="ml.m5.large",
                initial_variant_weight=1.0,
            )
        ],
    )
    endpoint = Endpoint.create(endpoint_name=name, endpoint_config_name=name)
    endpoint.wait_for_status("InService")
    answer = endpoint.invoke(body=json.dumps({"x": [2.0]}), content_type="application/json")
    assert json.loads(answer.body.read()) == {"y": [8.0]}
    assert [e.endpoint_name for e in Endpoint.get_all(name_contains=name)] == [name]
    endpoint.delete()
    endpoint.wait_for_delete()
    config.delete()
    model.delete()
    print("sagemaker-core resources: created, invoked, listed, deleted")


def builder(data: str, role: str) -> None:
    name = f"builder-{uuid.uuid4().hex[:8]}"
    build = ModelBuilder(
        image_uri=IMAGE,
        s3_model_data_url=data,
        env_vars=ENVIRONMENT,
        role_arn=role,
        instance_type="ml.m5.large",
    )
    build.build(model_name=name)
    endpoint = build.deploy(endpoint_name=name, initial_instance_count=1)
    answer = endpoint.invoke(body=json.dumps({"x": [3.0]}), content_type="application/json")
    assert json.loads(answer.body.read()) == {"y": [12.0]}
    endpoint.delete()
    print("ModelBuilder with an image and model data: deployed, invoked, deleted")


class Doubling(InferenceSpec):
    """Written for the SDK, which packs it by cloudpickle and serves it by an inference.py of its
    own."""

    def load(self, model_dir: str) -> object:
        return lambda data: {"y": [2 * x for x in data["x"]]}

    def invoke(self, input_object: object, model: object) -> object:
        return model(input_object)


def inference_spec() -> None:
    name = f"spec-{uuid.uuid4().hex[:8]}"
    build = ModelBuilder(
        inference_spec=Doubling(),
        schema_builder=SchemaBuilder({"x": [1]}, {"y": [2]}),
        instance_type="ml.m5.large",
        model_server=ModelServer.TORCHSERVE,
        dependencies={"auto": False, "custom": ["cloudpickle", "sagemaker"]},
        image_uri=IMAGE,
    )
    build.build(model_name=name)
    endpoint = build.deploy(endpoint_name=name, initial_instance_count=1)
    answer = endpoint.invoke(body=json.dumps({"x": [3]}), content_type="application/json")
    assert json.loads(answer.body.read()) == {"y": [6]}
    endpoint.delete()
    print("ModelBuilder with an InferenceSpec: deployed, invoked, deleted")


def jumpstart() -> None:
    name = f"jumpstart-{uuid.uuid4().hex[:8]}"
    build = ModelBuilder(model="smollm2-135m-instruct")
    build.build(model_name=name)
    endpoint = build.deploy(endpoint_name=name)
    body = {"inputs": "The capital of France is", "parameters": {"max_new_tokens": 8}}
    answer = endpoint.invoke(body=json.dumps(body), content_type="application/json")
    assert "Paris" in answer.body.read().decode()
    endpoint.delete()
    print("ModelBuilder with a JumpStart id: deployed, invoked, deleted")


if __name__ == "__main__":
    main()
