"""A model of the zoo, trained further by its recipe and served: the client's whole way."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ridgeline_jobs import Jobs, running_jobs
from ridgeline_testing import shell_environment

from ridgeline import HuggingFace, Session, TrainingFailed, ZooEstimator
from ridgeline._progress import SilentProgress
from ridgeline_service.runtime.images import resolve_training
from ridgeline_zoo import tuning

pytestmark = pytest.mark.e2e

CHATS = [
    {"prompt": f"Which word has number {each}?", "completion": f"lamp {each % 5}"}
    for each in range(24)
]
QUICK = {"threads": 1, "log_every": 1, "max_steps": 3, "general_share": 0}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A service, if the environment of the training image is there: it takes minutes to make."""
    cache = Path(shell_environment()["RIDGELINE_CACHE"])
    name = resolve_training(f"r/{tuning.IMAGE}").environment
    if not list(cache.glob(f"environments/{name}-*/.ready")):
        pytest.skip("no environment with trl and peft: a first fine-tuning makes one")
    with running_jobs(tmp_path_factory.mktemp("zoo") / "data") as jobs:
        yield made(jobs)


def made(jobs: Jobs) -> Session:
    return Session(data_dir=jobs.service.data_dir, progress=SilentProgress())


def write(folder: Path, records: list[object]) -> str:
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    return str(folder)


def test_a_tuned_model_is_served_with_its_template(session: Session, tmp_path: Path) -> None:
    estimator = ZooEstimator("tiny-llama-seeded", hyperparameters=QUICK, sagemaker_session=session)
    estimator.fit({"training": write(tmp_path / "chats", list(CHATS))})
    job = estimator.latest_training_job
    assert job is not None
    found = {each["MetricName"] for each in job.describe()["FinalMetricDataList"]}
    assert {"loss", "tokens_per_second"} <= found
    bucket, _, key = estimator.model_data.removeprefix("s3://").partition("/")
    body = session.s3_client.get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
    assert {"model.safetensors", "chat_template.jinja", "adapter/adapter_config.json"} <= names
    # By its name alone, as another program would.
    predictor = ZooEstimator.attach(job.name, sagemaker_session=session).deploy()
    try:
        assert isinstance(predictor.chat("Which word has number 3?", max_tokens=8), str)
    finally:
        predictor.delete_endpoint()


def test_the_image_of_hugging_face_has_its_libraries(session: Session, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import argparse, json, os, pathlib\n"
        "import accelerate, datasets, peft, transformers, trl\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--model_name')\n"
        "name = parser.parse_args().model_name\n"
        "config = transformers.LlamaConfig(hidden_size=8, intermediate_size=8, vocab_size=16,\n"
        "    num_hidden_layers=1, num_attention_heads=2)\n"
        "model = transformers.LlamaForCausalLM(config)\n"
        "model.save_pretrained(os.environ['SM_MODEL_DIR'])\n"
        "print(f'name={name} libraries={transformers.__version__}')\n"
    )
    estimator = HuggingFace(
        str(tmp_path / "train.py"),
        transformers_version="4.49.0",
        pytorch_version="2.5.1",
        py_version="py311",
        hyperparameters={"model_name": "tiny"},
        sagemaker_session=session,
    )
    estimator.fit()
    bucket, _, key = estimator.model_data.removeprefix("s3://").partition("/")
    body = session.s3_client.get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert {"config.json", "model.safetensors"} <= set(archive.getnames())
    job = estimator.latest_training_job
    assert job is not None
    assert any("name=tiny libraries=" in line.text for line in job.logs())


def test_bad_data_is_the_reason_of_the_job(session: Session, tmp_path: Path) -> None:
    estimator = ZooEstimator("tiny-llama-seeded", hyperparameters=QUICK, sagemaker_session=session)
    with pytest.raises(TrainingFailed) as caught:
        estimator.fit(write(tmp_path / "chats", [*CHATS, {"prompt": "When?"}]))
    assert "train.jsonl:25: completion: expected a text that is not empty" in str(caught.value)
