"""An endpoint whose archive brings LoRA adapters: named behind it through the gateway."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from random_adapters import tiny_model, write_adapter
from ridgeline_testing import DJL_IMAGE, Service, variant

pytestmark = pytest.mark.e2e

NAME = "adapted"
BUCKET = "adapted-models"
TO_THE_END = {"ignore_eos": True}


@pytest.fixture(scope="module")
def endpoint(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tiny_model(tmp_path_factory.mktemp("model") / "tiny")
    write_adapter(folder, folder / "adapters" / "poet", seed=1)
    write_adapter(folder, folder / "tuned" / "cook", seed=2)
    s3 = service.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="model.tar.gz", Body=packed(folder))
    service.client("sagemaker").create_model(
        ModelName=NAME,
        ExecutionRoleArn=service.role,
        PrimaryContainer={
            "Image": DJL_IMAGE,
            "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz",
            "Environment": {
                "OPTION_ENABLE_LORA": "true",
                "OPTION_LORA_MODULES": '[{"name": "cook", "path": "/opt/ml/model/tuned/cook"}]',
                "OPTION_MAX_MODEL_LEN": "256",
            },
        },
    )
    service.client("sagemaker").create_endpoint_config(
        EndpointConfigName=NAME, ProductionVariants=[variant(NAME)]
    )
    service.client("sagemaker").create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
    service.wait_in_service(NAME)
    yield NAME
    service.delete(NAME)


def packed(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()


def test_adapters_are_models_behind_their_endpoint(service: Service, endpoint: str) -> None:
    client = OpenAI(
        base_url=service.variables["OPENAI_BASE_URL"], api_key=service.api_key, max_retries=0
    )
    listed: dict[str, Any] = {model.id: model for model in client.models.list()}
    names = [endpoint, f"{endpoint}:cook", f"{endpoint}:poet"]
    assert sorted(name for name in listed if name.startswith(endpoint)) == names
    assert listed[names[1]].parent == endpoint

    def say(model: str) -> str:
        answer = client.completions.create(
            model=model, prompt="Once", max_tokens=24, temperature=0, extra_body=TO_THE_END
        )
        assert answer.model == model
        return answer.choices[0].text

    texts = {name: say(name) for name in names}
    assert len(set(texts.values())) == len(names)
    with pytest.raises(openai.NotFoundError, match="nobody"):
        say(f"{endpoint}:nobody")

    parameters = {"max_new_tokens": 24, "ignore_eos_token": True}
    for adapter, expected in (("cook", texts[names[1]]), ("", texts[endpoint])):
        body = {"inputs": "Once", "parameters": parameters, "adapters": adapter}
        answer = service.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=endpoint, ContentType="application/json", Body=json.dumps(body)
        )
        assert json.load(answer["Body"])["generated_text"] == expected
