"""AWS's sagemaker SDK v2, unmodified: processors and batch transform."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from pathlib import Path

import sagemaker
from sagemaker.exceptions import UnexpectedStatusException
from sagemaker.processing import (
    ProcessingInput,
    ProcessingJob,
    ProcessingOutput,
    Processor,
    ScriptProcessor,
)
from sagemaker.pytorch import PyTorch, PyTorchModel
from sagemaker.pytorch.processing import PyTorchProcessor
from sagemaker.sklearn.processing import SKLearnProcessor
from sagemaker.transformer import Transformer

COUNTS = """
import argparse, os, time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--factor", type=int, default=1)
parser.add_argument("--sleep", type=float, default=0)
args = parser.parse_args()
time.sleep(args.sleep)
if args.factor < 0:
    raise ValueError("a factor below nothing")
rows = Path("/opt/ml/processing/input/data/d.csv").read_text().split()
print(f"rows={len(rows)}", flush=True)
out = Path("/opt/ml/processing/out")
(out / "count.txt").write_text(f"{len(rows) * args.factor} {os.environ.get('WORD', '')}")
"""
SCALES = """
from pathlib import Path

import numpy
from sklearn.preprocessing import StandardScaler

rows = numpy.loadtxt("/opt/ml/processing/input/data/d.csv").reshape(-1, 1)
scaled = StandardScaler().fit_transform(rows)
Path("/opt/ml/processing/out/mean.txt").write_text(f"{abs(scaled.mean()):.3f}")
"""
WITH_HELPER = """
from pathlib import Path

import helper
import torch

Path("/opt/ml/processing/out/sum.txt").write_text(f"{torch.tensor(helper.VALUES).sum().item()}")
"""
TRAIN = """
import json, os
from pathlib import Path

Path(os.environ["SM_MODEL_DIR"], "weight.json").write_text("3.0")
"""
INFERENCE = """
import json
from pathlib import Path


def model_fn(model_dir):
    return json.loads((Path(model_dir) / "weight.json").read_text())


def input_fn(body, content_type):
    text = body if isinstance(body, str) else body.decode()
    return [float(line.split(",")[-1]) for line in text.splitlines() if line.strip()]


def predict_fn(data, model):
    return [value * model for value in data]


def output_fn(prediction, accept):
    return "\\n".join(map(str, prediction)), accept
"""
INPUT, OUTPUT = "/opt/ml/processing/input/data", "/opt/ml/processing/out"


def main() -> None:
    session = sagemaker.Session()
    proxied = "AWS_ENDPOINT_URL" not in os.environ
    role = sagemaker.get_execution_role() if proxied else os.environ["RIDGELINE_ROLE_ARN"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "code").mkdir()
        (folder / "code" / "run.py").write_text(WITH_HELPER)
        (folder / "code" / "helper.py").write_text("VALUES = [1, 2]")
        (folder / "code" / "requirements.txt").write_text("numpy\n")
        (folder / "counts.py").write_text(COUNTS)
        (folder / "scales.py").write_text(SCALES)
        (folder / "both").mkdir()
        (folder / "both" / "train.py").write_text(TRAIN)
        (folder / "both" / "inference.py").write_text(INFERENCE)
        (folder / "d.csv").write_text("1\n2\n3\n")
        script_processor(session, role, folder)
        processor(session, role, folder)
        sklearn_processor(session, role, folder)
        framework_processor(session, role, folder)
        transformer(session, role, folder)


def common(session: sagemaker.Session, role: str) -> dict[str, object]:
    return {
        "role": role,
        "instance_count": 1,
        "instance_type": "ml.m5.large",
        "sagemaker_session": session,
    }


def image(session: sagemaker.Session) -> str:
    return sagemaker.image_uris.retrieve(
        "pytorch",
        session.boto_region_name,
        version="2.8.0",
        py_version="py312",
        instance_type="ml.m5.large",
        image_scope="training",
    )


def files(session: sagemaker.Session, uri: str) -> dict[str, str]:
    """Texts by their keys below a URI, as the SDK downloads them."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    with tempfile.TemporaryDirectory() as folder:
        session.download_data(folder, bucket, prefix)
        found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_text() for path in found}


def script_processor(session: sagemaker.Session, role: str, folder: Path) -> None:
    made = ScriptProcessor(
        image_uri=image(session), command=["python3"], env={"WORD": "w"}, **common(session, role)
    )
    places = {
        "inputs": [ProcessingInput(source=str(folder / "d.csv"), destination=INPUT)],
        "outputs": [ProcessingOutput(source=OUTPUT, output_name="out")],
    }
    made.run(str(folder / "counts.py"), arguments=["--factor", "2"], **places)
    [out] = made.latest_job.outputs
    assert files(session, out.destination) == {"count.txt": "6 w"}
    again = ProcessingJob.from_processing_name(session, made.latest_job.job_name)
    assert again.outputs[0].destination == out.destination
    assert again.describe()["ProcessingJobStatus"] == "Completed"
    said = ""
    try:
        made.run(str(folder / "counts.py"), arguments=["--factor", "-1"], **places)
    except UnexpectedStatusException as error:
        said = str(error)
    assert "a factor below nothing" in said, said
    made.run(str(folder / "counts.py"), arguments=["--sleep", "600"], wait=False, **places)
    made.latest_job.stop()
    made.latest_job.wait(logs=False)
    assert made.latest_job.describe()["ProcessingJobStatus"] == "Stopped"
    print("ScriptProcessor: run, found again, failed with its reason, stopped")


def processor(session: sagemaker.Session, role: str, folder: Path) -> None:
    code = session.upload_data(str(folder / "counts.py"), key_prefix="compat-processing/code")
    data = session.upload_data(str(folder / "d.csv"), key_prefix="compat-processing/data")
    made = Processor(
        image_uri=image(session),
        entrypoint=["python3", "/opt/ml/processing/code/counts.py"],
        max_runtime_in_seconds=600,
        **common(session, role),
    )
    made.run(
        inputs=[
            ProcessingInput(source=code, destination="/opt/ml/processing/code"),
            ProcessingInput(source=data, destination=INPUT),
        ],
        outputs=[ProcessingOutput(source=OUTPUT, s3_upload_mode="Continuous")],
    )
    assert files(session, made.latest_job.outputs[0].destination) == {"count.txt": "3 "}
    print("Processor: run with its output continuously uploaded")


def sklearn_processor(session: sagemaker.Session, role: str, folder: Path) -> None:
    made = SKLearnProcessor(framework_version="1.2-1", **common(session, role))
    made.run(
        str(folder / "scales.py"),
        inputs=[ProcessingInput(source=str(folder / "d.csv"), destination=INPUT)],
        outputs=[ProcessingOutput(source=OUTPUT)],
    )
    assert files(session, made.latest_job.outputs[0].destination) == {"mean.txt": "0.000"}
    print("SKLearnProcessor: run")


def framework_processor(session: sagemaker.Session, role: str, folder: Path) -> None:
    made = PyTorchProcessor(framework_version="2.8.0", py_version="py312", **common(session, role))
    made.run(
        "run.py",
        source_dir=str(folder / "code"),
        outputs=[ProcessingOutput(source=OUTPUT)],
    )
    assert files(session, made.latest_job.outputs[0].destination) == {"sum.txt": "3"}
    print("PyTorchProcessor: run with source_dir and requirements")


def transformer(session: sagemaker.Session, role: str, folder: Path) -> None:
    data = session.upload_data(str(folder / "d.csv"), key_prefix="compat-transform/in")
    prefix = data.rpartition("/")[0]
    estimator = PyTorch(
        "train.py",
        source_dir=str(folder / "both"),
        framework_version="2.6.0",  # the newest whose inference image this SDK knows
        py_version="py312",
        **common(session, role),
    )
    estimator.fit()
    by_model = PyTorchModel(
        model_data=estimator.model_data,
        role=role,
        entry_point=str(folder / "both" / "inference.py"),
        framework_version="2.6.0",
        py_version="py312",
        sagemaker_session=session,
    ).transformer(1, "ml.m5.large", strategy="MultiRecord", assemble_with="Line", accept="text/csv")
    by_model.transform(prefix, content_type="text/csv", split_type="Line", logs=True)
    assert files(session, by_model.output_path) == {"d.csv.out": "3.0\n6.0\n9.0\n"}
    by_estimator = estimator.transformer(
        1,
        "ml.m5.large",
        strategy="SingleRecord",
        assemble_with="Line",
        accept="text/csv",
        entry_point="inference.py",  # in the source_dir that it trained with
        max_concurrent_transforms=2,
    )
    by_estimator.transform(
        prefix,
        content_type="text/csv",
        split_type="Line",
        join_source="Input",
        output_filter="$[0,-1]",
        model_client_config={"InvocationsTimeoutInSeconds": 60, "InvocationsMaxRetries": 1},
    )
    assert files(session, by_estimator.output_path) == {"d.csv.out": "1,3.0\n2,6.0\n3,9.0\n"}
    name = by_estimator.latest_transform_job.name
    attached = Transformer.attach(name, sagemaker_session=session)
    assert attached.output_path == by_estimator.output_path
    bad = json.dumps(["no number"])
    # Not a name that begins with the good ones' prefix: a second run would read both.
    bad_prefix = f"{prefix.rpartition('/')[0]}/bad"
    bucket, _, key = bad_prefix.removeprefix("s3://").partition("/")
    session.boto_session.client("s3").upload_fileobj(
        io.BytesIO(bad.encode()), bucket, f"{key}/x.csv"
    )
    said = ""
    try:
        attached.transform(bad_prefix, content_type="text/csv", split_type="Line")
    except UnexpectedStatusException as error:
        said = str(error)
    assert "could not convert string to float" in said, said
    print("Transformer: by model, by estimator, attached; a failure told")


if __name__ == "__main__":
    main()
    sys.exit(0)
