"""AWS's sagemaker SDK v2, unmodified: PyTorchModel, Model, Predictor, async, JumpStartModel."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import sagemaker
from sagemaker.async_inference import AsyncInferenceConfig, AsyncInferenceResponse
from sagemaker.deserializers import JSONDeserializer
from sagemaker.exceptions import ObjectNotExistedError
from sagemaker.jumpstart.model import JumpStartModel
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.pytorch import PyTorchModel
from sagemaker.serializers import JSONSerializer

INFERENCE = """
import json
from pathlib import Path


def model_fn(model_dir):
    return json.loads((Path(model_dir) / "weight.json").read_text())


def predict_fn(data, model):
    return {"y": [float(x) * model for x in data["x"]]}


def input_fn(body, content_type):
    return json.loads(body)


def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""
JSON = {"serializer": JSONSerializer(), "deserializer": JSONDeserializer()}


def main() -> None:
    session = sagemaker.Session()
    proxied = "AWS_ENDPOINT_URL" not in os.environ
    role = sagemaker.get_execution_role() if proxied else os.environ["RIDGELINE_ROLE_ARN"]
    pytorch(session, role)
    llm(session, role)
    jumpstart(session, role)


def pytorch(session: sagemaker.Session, role: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "weight.json").write_text("3.0")
        (folder / "code").mkdir()
        (folder / "code" / "inference.py").write_text(INFERENCE)
        with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
            archive.add(folder / "weight.json", "weight.json")
        data = session.upload_data(
            str(folder / "model.tar.gz"), session.default_bucket(), "compat-v2"
        )
        model = PyTorchModel(
            model_data=data,
            role=role,
            entry_point="inference.py",
            source_dir=str(folder / "code"),
            framework_version="2.6.0",
            py_version="py312",
            sagemaker_session=session,
        )
        predictor = model.deploy(
            initial_instance_count=1,
            instance_type="ml.m5.large",
            async_inference_config=AsyncInferenceConfig(),
            **JSON,
        )
    # Not predictor.predict: on an asynchronous endpoint the SDK leaves a thread behind that waits
    # for a failure object for a quarter of an hour, and the script would not end.
    direct = Predictor(predictor.endpoint_name, session, **JSON)
    assert direct.predict({"x": [1, 2]}) == {"y": [3.0, 6.0]}
    later = predictor.predict_async({"x": [5]})
    assert result_of(later) == {"y": [15.0]}
    predictor.delete_model()
    predictor.delete_endpoint()
    print("PyTorchModel: deployed, predicted, predicted asynchronously, deleted")


def result_of(response: AsyncInferenceResponse, attempts: int = 60) -> object:
    """The result once it is there."""
    for _ in range(attempts):
        try:
            return response.get_result()
        except ObjectNotExistedError:
            time.sleep(1)
    raise AssertionError("no result of the asynchronous call")


def llm(session: sagemaker.Session, role: str) -> None:
    image = sagemaker.image_uris.retrieve("djl-lmi", session.boto_region_name, "0.30.0")
    model = Model(
        image_uri=image,
        role=role,
        env={"HF_MODEL_ID": "HuggingFaceTB/SmolLM2-135M-Instruct"},
        predictor_cls=Predictor,
        sagemaker_session=session,
    )
    predictor = model.deploy(initial_instance_count=1, instance_type="ml.g5.xlarge", **JSON)
    body = {"inputs": "The capital of France is", "parameters": {"max_new_tokens": 8}}
    body["parameters"]["do_sample"] = False
    assert "Paris" in predictor.predict(body)["generated_text"]
    streamed = b"".join(
        part["PayloadPart"]["Bytes"]
        for part in session.sagemaker_runtime_client.invoke_endpoint_with_response_stream(
            EndpointName=predictor.endpoint_name,
            ContentType="application/json",
            Body=json.dumps(body | {"stream": True}),
        )["Body"]
    )
    assert b"generated_text" in streamed
    predictor.delete_model()
    predictor.delete_endpoint()
    print("Model on the DJL image: deployed, asked, streamed, deleted")


def jumpstart(session: sagemaker.Session, role: str) -> None:
    model = JumpStartModel(model_id="smollm2-135m-instruct", role=role, sagemaker_session=session)
    predictor = model.deploy(accept_eula=True)
    answer = predictor.predict(
        {"inputs": "The capital of France is", "parameters": {"max_new_tokens": 8}}
    )
    assert "Paris" in json.dumps(answer), answer
    predictor.delete_model()
    predictor.delete_endpoint()
    print("JumpStartModel: deployed, asked, deleted")


if __name__ == "__main__":
    main()
    sys.exit(0)
