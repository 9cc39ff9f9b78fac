"""AWS's sagemaker SDK v3, unmodified: processors, Transformer and sagemaker-core's resources."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import tempfile
import uuid
from pathlib import Path

import boto3
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.processing import FrameworkProcessor, ScriptProcessor
from sagemaker.core.resources import ProcessingJob, TransformJob
from sagemaker.core.shapes import (
    ProcessingInput,
    ProcessingOutput,
    ProcessingS3Input,
    ProcessingS3Output,
)
from sagemaker.core.transformer import Transformer

REGISTRY = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
TRAINS = f"{REGISTRY}/pytorch-training:2.8.0-cpu-py312-ubuntu22.04-sagemaker"
SERVES = f"{REGISTRY}/pytorch-inference:2.6.0-cpu-py312"
COUNTS = """
from pathlib import Path

rows = Path("/opt/ml/processing/input/data/d.csv").read_text().split()
Path("/opt/ml/processing/out/count.txt").write_text(str(len(rows)))
"""
WITH_HELPER = """
from pathlib import Path

import helper

Path("/opt/ml/processing/out/value.txt").write_text(str(helper.VALUE))
"""
INFERENCE = """
def model_fn(model_dir):
    return 3.0


def transform_fn(model, body, content_type, accept):
    text = body if isinstance(body, str) else body.decode()
    return "\\n".join(str(float(line) * model) for line in text.split()), accept
"""
OUT = "/opt/ml/processing/out"


def main() -> None:
    session = Session()
    role = os.environ.get("RIDGELINE_ROLE_ARN") or session.get_caller_identity_arn()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "counts.py").write_text(COUNTS)
        (folder / "code").mkdir()
        (folder / "code" / "run.py").write_text(WITH_HELPER)
        (folder / "code" / "helper.py").write_text("VALUE = 42")
        (folder / "code" / "requirements.txt").write_text("numpy\n")
        (folder / "d.csv").write_text("1\n2\n3\n")
        processors(session, folder)
        transformer(session, role)


def processors(session: Session, folder: Path) -> None:
    common = {  # the role comes from the configuration file
        "image_uri": TRAINS,
        "instance_count": 1,
        "instance_type": "ml.m5.large",
        "sagemaker_session": session,
    }
    bucket = session.default_bucket()
    data = put(bucket, f"v3-batch/{uuid.uuid4().hex}/d.csv", (folder / "d.csv").read_bytes())
    given = ProcessingInput(
        input_name="data",
        s3_input=ProcessingS3Input(
            s3_uri=data,
            local_path="/opt/ml/processing/input/data",
            s3_data_type="S3Prefix",
            s3_input_mode="File",
        ),
    )
    for maker, code, more, name, body in (
        (ScriptProcessor, str(folder / "counts.py"), {}, "count.txt", b"3"),
        (FrameworkProcessor, "run.py", {"source_dir": str(folder / "code")}, "value.txt", b"42"),
    ):
        target = f"v3-batch/{uuid.uuid4().hex}/out"
        wanted = ProcessingOutput(
            output_name="out",
            s3_output=ProcessingS3Output(
                s3_uri=f"s3://{bucket}/{target}", local_path=OUT, s3_upload_mode="EndOfJob"
            ),
        )
        processor = maker(command=["python3"], **common)
        processor.run(code, inputs=[given], outputs=[wanted], **more)
        assert get(bucket, f"{target}/{name}") == body
        job = ProcessingJob.get(processor.latest_job.processing_job_name)
        assert job.processing_job_status == "Completed"
        job.wait()
        print(f"{maker.__name__}: run")
    assert "Completed" in {each.processing_job_status for each in ProcessingJob.get_all()}


def transformer(session: Session, role: str) -> None:
    bucket, name = session.default_bucket(), f"v3-batch-{uuid.uuid4().hex[:8]}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        info = tarfile.TarInfo("code/inference.py")
        info.size = len(INFERENCE)
        archive.addfile(info, io.BytesIO(INFERENCE.encode()))
    model = put(bucket, f"{name}/model.tar.gz", packed.getvalue())
    boto3.client("sagemaker").create_model(
        ModelName=name,
        ExecutionRoleArn=role,
        PrimaryContainer={"Image": SERVES, "ModelDataUrl": model},
    )
    data = put(bucket, f"{name}/in/d.csv", b"1\n2\n")
    made = Transformer(
        name,
        1,
        "ml.m5.large",
        strategy="SingleRecord",
        assemble_with="Line",
        accept="text/csv",
        output_path=f"s3://{bucket}/{name}/out",
        sagemaker_session=session,
    )
    made.transform(data, content_type="text/csv", split_type="Line", join_source="Input")
    assert get(bucket, f"{name}/out/d.csv.out") == b"1,3.0\n2,6.0\n"
    [job] = list(TransformJob.get_all(name_contains=name))
    job.refresh()
    assert job.transform_job_status == "Completed"
    job.wait()
    print("Transformer: run, found again", json.dumps(job.transform_job_name))


def put(bucket: str, key: str, body: bytes) -> str:
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
    return f"s3://{bucket}/{key}"


def get(bucket: str, key: str) -> bytes:
    found: bytes = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    return found


if __name__ == "__main__":
    main()
    sys.exit(0)
