"""AWS's sagemaker SDK v2, unmodified: a Hugging Face processor, a scikit-learn model over a batch,
a model compiled for a simulated Neuron device, and the tables of a finished search.

The service makes the environment of the Hugging Face image first, where it is not there: minutes.
"""

from __future__ import annotations

import os
import sys
import tarfile
import tempfile
import uuid
from pathlib import Path

import sagemaker
import tiny_llama
from sagemaker.analytics import HyperparameterTuningJobAnalytics, TrainingJobAnalytics
from sagemaker.exceptions import UnexpectedStatusException
from sagemaker.huggingface import HuggingFaceProcessor
from sagemaker.processing import ProcessingInput, ProcessingOutput
from sagemaker.pytorch import PyTorchModel
from sagemaker.sklearn import SKLearn, SKLearnModel
from sagemaker.tuner import ContinuousParameter, HyperparameterTuner

CONVERTS = """
import json
from pathlib import Path

import datasets
import transformers

rows = datasets.load_dataset(
    "csv", data_files="/opt/ml/processing/input/data/d.csv", cache_dir="/tmp/cache"
)["train"]
found = {"rows": len(rows), "transformers": transformers.__version__}
Path("/opt/ml/processing/out/found.json").write_text(json.dumps(found))
"""
TRAIN = """
import argparse
import os
from pathlib import Path

import joblib
import numpy
from sklearn.linear_model import Ridge

parser = argparse.ArgumentParser()
parser.add_argument("--alpha", type=float, required=True)
alpha = parser.parse_args().alpha
model = Ridge(alpha=alpha).fit(numpy.array([[1.0], [2.0]]), numpy.array([2.0, 4.0]))
for epoch in range(3):
    print(f"error={alpha + epoch:.6f};", flush=True)
joblib.dump(model, Path(os.environ["SM_MODEL_DIR"]) / "model.joblib")
"""
SERVE = """
import os

import joblib


def model_fn(folder):
    return joblib.load(os.path.join(folder, "model.joblib"))
"""
METRICS = [{"Name": "error", "Regex": "error=([0-9.]+);"}]


def main() -> None:
    session = sagemaker.Session()
    proxied = "AWS_ENDPOINT_URL" not in os.environ
    role = sagemaker.get_execution_role() if proxied else os.environ["RIDGELINE_ROLE_ARN"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "convert.py").write_text(CONVERTS)
        (folder / "train.py").write_text(TRAIN)
        (folder / "serve.py").write_text(SERVE)
        (folder / "d.csv").write_text("a,b\n1,2\n3,4\n")
        (folder / "x.csv").write_text("1\n2\n")
        hugging_face(session, role, folder)
        best = searched(session, role, folder)
        transformed(session, role, folder, best)
        compiled(session, role, folder)


def hugging_face(session: sagemaker.Session, role: str, folder: Path) -> None:
    processor = HuggingFaceProcessor(
        role=role,
        instance_count=1,
        instance_type="ml.p3.2xlarge",  # the SDK knows no image of this framework for processors
        transformers_version="4.56.2",
        pytorch_version="2.8.0",
        py_version="py312",
        sagemaker_session=session,
    )
    processor.run(
        "convert.py",
        source_dir=str(folder),
        inputs=[
            ProcessingInput(
                source=str(folder / "d.csv"), destination="/opt/ml/processing/input/data"
            )
        ],
        outputs=[ProcessingOutput(source="/opt/ml/processing/out", output_name="found")],
    )
    [out] = processor.latest_job.outputs
    text = sagemaker.s3.S3Downloader.read_file(f"{out.destination}/found.json", session)
    assert '"rows": 2' in text, text
    print("HuggingFaceProcessor: run")


def searched(session: sagemaker.Session, role: str, folder: Path) -> str:
    """Where the best model of a search lies."""
    tuner = HyperparameterTuner(
        SKLearn(
            entry_point="train.py",
            source_dir=str(folder),
            role=role,
            framework_version="1.2-1",
            instance_type="ml.m5.large",
            sagemaker_session=session,
        ),
        objective_metric_name="error",
        objective_type="Minimize",
        hyperparameter_ranges={"alpha": ContinuousParameter(1e-4, 1e-1)},
        metric_definitions=METRICS,
        max_jobs=2,
        max_parallel_jobs=2,
        base_tuning_job_name="frameworks",
    )
    tuner.fit(wait=False)
    name = tuner.latest_tuning_job.name
    attached = HyperparameterTuner.attach(name, sagemaker_session=session)
    attached.wait()
    table = HyperparameterTuningJobAnalytics(name, sagemaker_session=session).dataframe()
    best = table.sort_values("FinalObjectiveValue").iloc[0]
    assert attached.best_training_job() == best["TrainingJobName"], table
    assert abs(best["FinalObjectiveValue"] - best["alpha"] - 2) < 1e-5, table
    curve = TrainingJobAnalytics(best["TrainingJobName"], sagemaker_session=session).dataframe()
    assert set(curve["metric_name"]) == {"error"}, curve
    print("HyperparameterTuner: attached while it ran; its tables and a training job's curve")
    return str(attached.best_estimator().model_data)


def transformed(session: sagemaker.Session, role: str, folder: Path, model_data: str) -> None:
    """By what the framework's own functions read and write."""
    data = session.upload_data(str(folder / "x.csv"), key_prefix=f"frameworks/{uuid.uuid4().hex}")
    transformer = SKLearnModel(
        model_data=model_data,
        role=role,
        entry_point=str(folder / "serve.py"),
        framework_version="1.2-1",
        sagemaker_session=session,
    ).transformer(1, "ml.m5.large", assemble_with="Line", accept="text/csv")
    transformer.transform(data, content_type="text/csv", split_type="Line", wait=False)
    transformer.wait()
    text = sagemaker.s3.S3Downloader.read_file(f"{transformer.output_path}/x.csv.out", session)
    answers = [float(line) for line in text.split()]
    assert len(answers) == 2, text
    assert abs(answers[0] - 2) < 0.5, text
    print("SKLearnModel: a batch transformed by its defaults")


def compiled(session: sagemaker.Session, role: str, folder: Path) -> None:
    (folder / "llama").mkdir()
    tiny_llama.write(folder / "llama")
    with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
        archive.add(folder / "llama", arcname=".")
    place = f"frameworks/{uuid.uuid4().hex}"
    options = {
        "target_instance_family": "ml_inf2",
        "input_shape": {"input_ids": [1, 128]},
        "output_path": f"s3://{session.default_bucket()}/{place}/out",
        "role": role,
        "framework": "pytorch",
        "framework_version": "2.6",
    }

    def model(model_data: str) -> PyTorchModel:
        return PyTorchModel(
            model_data=model_data,
            role=role,
            entry_point=str(folder / "serve.py"),
            framework_version="2.6.0",
            py_version="py312",
            sagemaker_session=session,
        )

    whole = model(session.upload_data(str(folder / "model.tar.gz"), key_prefix=place))
    whole.compile(**options, job_name=f"compile-{uuid.uuid4().hex[:8]}")
    assert whole.model_data.endswith("/out/model-ml_inf2.tar.gz"), whole.model_data
    assert "neuronx" in whole.image_uri, whole.image_uri
    said = ""
    try:
        absent = model(f"s3://{session.default_bucket()}/{place}/nothing.tar.gz")
        absent.compile(**options, job_name=f"compile-{uuid.uuid4().hex[:8]}")
    except UnexpectedStatusException as error:
        said = str(error)
    assert "There is nothing at s3://" in said, said
    print("Model.compile: compiled; a failure told with its cause")


if __name__ == "__main__":
    main()
    sys.exit(0)
