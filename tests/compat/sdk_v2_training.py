"""AWS's sagemaker SDK v2, unmodified: training with Estimator, PyTorch, SKLearn, attach."""

from __future__ import annotations

import os
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import sagemaker
from sagemaker.analytics import TrainingJobAnalytics
from sagemaker.deserializers import JSONDeserializer
from sagemaker.estimator import Estimator
from sagemaker.exceptions import UnexpectedStatusException
from sagemaker.inputs import TrainingInput
from sagemaker.pytorch import PyTorch
from sagemaker.serializers import JSONSerializer
from sagemaker.sklearn import SKLearn

TRAIN = """
import argparse, json, os
from pathlib import Path

import helper
import numpy

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--name", required=True)
parser.add_argument("--verbose")
args = parser.parse_args()
if args.lr > 1:
    raise ValueError(f"a learning rate of {args.lr} is too high")
rows = (Path(os.environ["SM_CHANNEL_TRAIN"]) / "d.csv").read_text().split()
for epoch in range(args.epochs):
    print(f"loss={1 / (epoch + 1)};", flush=True)
result = {"name": args.name, "rows": len(rows), "helper": helper.VALUE, "verbose": args.verbose}
(Path(os.environ["SM_MODEL_DIR"]) / "model.json").write_text(json.dumps(result))
"""
INFERENCE = """
import json
from pathlib import Path


def model_fn(model_dir):
    return json.loads((Path(model_dir) / "model.json").read_text())


def predict_fn(data, model):
    return {"name": model["name"], "y": [x * model["rows"] for x in data["x"]]}


def input_fn(body, content_type):
    return json.loads(body)


def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""
SKLEARN = """
import os
from pathlib import Path

import joblib
import numpy
from sklearn.linear_model import LinearRegression

model = LinearRegression().fit(numpy.array([[1.0], [2.0]]), numpy.array([2.0, 4.0]))
joblib.dump(model, Path(os.environ["SM_MODEL_DIR"]) / "model.joblib")
"""
PLAIN = """
import json
from pathlib import Path

values = json.loads(Path("/opt/ml/input/config/hyperparameters.json").read_text())
Path("/opt/ml/model/values.json").write_text(json.dumps(values))
"""
METRICS = [{"Name": "loss", "Regex": "loss=([0-9.]+);"}]


def main() -> None:
    session = sagemaker.Session()
    proxied = "AWS_ENDPOINT_URL" not in os.environ
    role = sagemaker.get_execution_role() if proxied else os.environ["RIDGELINE_ROLE_ARN"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "code").mkdir()
        (folder / "code" / "train.py").write_text(TRAIN)
        (folder / "code" / "inference.py").write_text(INFERENCE)
        (folder / "code" / "helper.py").write_text("VALUE = 42")
        (folder / "code" / "requirements.txt").write_text("numpy\n")
        (folder / "sk.py").write_text(SKLEARN)
        (folder / "plain.py").write_text(PLAIN)
        (folder / "d.csv").write_text("1\n2\n3\n")
        data = session.upload_data(str(folder / "d.csv"), key_prefix="compat-train/data")
        pytorch(session, role, folder, data)
        isolated(session, role, folder)
        sklearn(session, role, folder)
        plain(session, role, folder)


def pytorch(session: sagemaker.Session, role: str, folder: Path, data: str) -> None:
    options = {
        "entry_point": "train.py",
        "source_dir": str(folder / "code"),
        "role": role,
        "framework_version": "2.6.0",
        "py_version": "py312",
        "instance_count": 1,
        "instance_type": "ml.m5.large",
        "metric_definitions": METRICS,
        "sagemaker_session": session,
    }
    values = {"epochs": 2, "lr": 0.5, "name": "a b", "verbose": True}
    estimator = PyTorch(**options, hyperparameters=values)
    estimator.fit({"train": TrainingInput(data)})
    result = artifact(session, estimator.model_data, folder)
    assert '"name": "a b"' in result["model.json"], result
    assert '"rows": 3, "helper": 42, "verbose": "True"' in result["model.json"], result
    attached = PyTorch.attach(estimator.latest_training_job.name, sagemaker_session=session)
    assert attached.model_data == estimator.model_data
    assert attached.hyperparameters()["name"] == '"a b"'
    final = attached.latest_training_job.describe()["FinalMetricDataList"]
    assert [round(metric["Value"], 3) for metric in final] == [0.5]
    series = TrainingJobAnalytics(
        estimator.latest_training_job.name, ["loss"], sagemaker_session=session
    ).dataframe()
    assert not series.empty
    served(estimator, folder)
    said = ""
    try:
        PyTorch(**options, hyperparameters={**values, "lr": 3}).fit({"train": TrainingInput(data)})
    except UnexpectedStatusException as error:
        said = str(error)
    assert "a learning rate of 3.0 is too high" in said, said
    print("PyTorch: fitted, attached, measured, deployed; a failure told")


def served(estimator: PyTorch, folder: Path) -> None:
    """What was trained answers."""
    predictor = estimator.deploy(
        initial_instance_count=1,
        instance_type="ml.m5.large",
        entry_point="inference.py",
        source_dir=str(folder / "code"),
        serializer=JSONSerializer(),
        deserializer=JSONDeserializer(),
    )
    answer = predictor.predict({"x": [1, 2]})
    assert answer == {"name": "a b", "y": [3, 6]}, answer
    predictor.delete_model()
    predictor.delete_endpoint()


def isolated(session: sagemaker.Session, role: str, folder: Path) -> None:
    """The code comes in a channel, because the container could not fetch it."""
    estimator = PyTorch(
        entry_point=str(folder / "plain.py"),
        role=role,
        framework_version="2.6.0",
        py_version="py312",
        instance_count=1,
        instance_type="ml.m5.large",
        hyperparameters={"nonce": "x"},
        enable_network_isolation=True,
        sagemaker_session=session,
    )
    estimator.fit()
    assert '"nonce"' in artifact(session, estimator.model_data, folder)["values.json"]
    print("PyTorch with network isolation: fitted")


def sklearn(session: sagemaker.Session, role: str, folder: Path) -> None:
    estimator = SKLearn(
        entry_point=str(folder / "sk.py"),
        role=role,
        framework_version="1.2-1",
        instance_type="ml.m5.large",
        sagemaker_session=session,
    )
    estimator.fit(wait=False)
    estimator.latest_training_job.wait(logs="None")
    assert "model.joblib" in artifact(session, estimator.model_data, folder)
    print("SKLearn: fitted without waiting, then waited for")


def plain(session: sagemaker.Session, role: str, folder: Path) -> None:
    code = session.upload_data(str(folder / "plain.py"), key_prefix="compat-train/code")
    estimator = Estimator(
        image_uri=sagemaker.image_uris.retrieve(
            "pytorch",
            session.boto_region_name,
            version="2.6.0",
            py_version="py312",
            instance_type="ml.m5.large",
            image_scope="training",
        ),
        role=role,
        instance_count=1,
        instance_type="ml.m5.large",
        hyperparameters={"nonce": "x"},
        container_entry_point=["python3", "/opt/ml/input/data/code/plain.py"],
        sagemaker_session=session,
    )
    estimator.fit({"code": code})
    assert '"nonce": "x"' in artifact(session, estimator.model_data, folder)["values.json"]
    print("Estimator with an entry point of its own: fitted")


def artifact(session: sagemaker.Session, uri: str, folder: Path) -> dict[str, str]:
    """The files of a model archive, which is downloaded."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    place = folder / f"{time.monotonic_ns()}.tar.gz"
    session.boto_session.client("s3").download_file(bucket, key, str(place))
    found = {}
    with tarfile.open(place) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                found[member.name] = file.read().decode("latin-1")
    return found


if __name__ == "__main__":
    main()
    sys.exit(0)
