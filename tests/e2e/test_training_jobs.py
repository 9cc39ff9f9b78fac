"""Unmodified boto3 against a running service: training jobs, from their data to their artifacts."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from ridgeline_testing import Service, running_service, until

pytestmark = pytest.mark.e2e
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-cpu-py312"
BUCKET = "training-bucket"
LOGS = "/aws/sagemaker/TrainingJobs"

SCRIPT = """
import argparse, json, os, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.add_argument("--name")
args = parser.parse_args()
import helper

data = Path(os.environ["SM_CHANNEL_TRAIN"])
numbers = [int(path.read_text()) for path in sorted(data.glob("*.txt"))]
for epoch in range(args.epochs):
    print(f"epoch={epoch} train_mse={1 / (epoch + 1)};", flush=True)
config = json.loads(Path("/opt/ml/input/config/resourceconfig.json").read_text())
result = {
    "sum": sum(numbers),
    "name": args.name,
    "helper": helper.VALUE,
    "host": config["current_host"],
    "cwd": os.getcwd(),
    "env": {k: v for k, v in os.environ.items()},
    "sees": sorted(os.listdir("/opt/ml")),
    "data_dir": os.path.exists(os.environ["SECRET_DIR"]),
}
(Path(os.environ["SM_MODEL_DIR"]) / "model.json").write_text(json.dumps(result))
(Path(os.environ["SM_OUTPUT_DATA_DIR"]) / "notes.txt").write_text("kept")
"""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """A service whose stopped jobs have 2 s of grace instead of 120."""
    data_dir = tmp_path_factory.mktemp("training") / "data"
    data_dir.mkdir()
    (data_dir / "settings.json").write_text(json.dumps({"job_stop_grace_s": 2.0}))
    with running_service(data_dir) as service:
        yield Jobs(service)


class Jobs:
    """What a user does with jobs, in boto3's words."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.sagemaker = service.client("sagemaker", retries=4)
        self.s3 = service.client("s3", retries=4)
        self.logs = service.client("logs", retries=4)
        self.s3.create_bucket(Bucket=BUCKET)

    def put(self, key: str, body: str | bytes) -> str:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        return f"s3://{BUCKET}/{key}"

    def code(self, name: str, files: Mapping[str, str]) -> str:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for path, text in files.items():
                info = tarfile.TarInfo(path)
                info.size = len(text.encode())
                archive.addfile(info, io.BytesIO(text.encode()))
        return self.put(f"{name}/source/sourcedir.tar.gz", buffer.getvalue())

    def create(self, script: str, *, files: Mapping[str, str] | None = None, **changes: Any) -> str:
        """Start ``script`` in script mode, or what ``changes`` say; its name."""
        name = changes.pop("name", None) or f"job-{uuid.uuid4().hex[:8]}"
        parameters = {
            "sagemaker_program": json.dumps("train.py"),
            "sagemaker_submit_directory": json.dumps(
                self.code(name, {"train.py": script, **(files or {})})
            ),
            **changes.pop("hyperparameters", {}),
        }
        algorithm = {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            **changes.pop("algorithm", {}),
        }
        request = {
            "TrainingJobName": name,
            "RoleArn": self.service.role,
            "AlgorithmSpecification": algorithm,
            "HyperParameters": parameters,
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 5,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            **changes,
        }
        self.sagemaker.create_training_job(**request)
        return name

    def channel(self, name: str, uri: str, **source: str) -> dict[str, Any]:
        return {
            "ChannelName": name,
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, **source}},
        }

    def describe(self, name: str) -> dict[str, Any]:
        return self.sagemaker.describe_training_job(TrainingJobName=name)

    def wait(self, name: str, timeout_s: float = 60) -> dict[str, Any]:
        ended = ("Completed", "Failed", "Stopped")
        until(lambda: self.describe(name)["TrainingJobStatus"] in ended, timeout_s)
        return self.describe(name)

    def run(self, script: str, **changes: Any) -> dict[str, Any]:
        return self.wait(self.create(script, **changes))

    def artifact(self, uri: str) -> dict[str, bytes]:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        body = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}

    def lines(self, name: str) -> list[str]:
        found: list[str] = []
        streams = self.logs.describe_log_streams(logGroupName=LOGS, logStreamNamePrefix=f"{name}/")[
            "logStreams"
        ]
        for stream in streams:
            token: dict[str, str] = {}
            while True:
                page = self.logs.get_log_events(
                    logGroupName=LOGS,
                    logStreamName=stream["logStreamName"],
                    startFromHead=True,
                    **token,
                )
                found += [event["message"] for event in page["events"]]
                if not page["events"]:
                    break
                token = {"nextToken": page["nextForwardToken"]}
        return found

    def says(self, name: str, text: str) -> bool:
        try:
            return any(text in line for line in self.lines(name))
        except ClientError:
            return False


def test_script_mode_from_data_to_artifacts(jobs: Jobs) -> None:
    for number in range(3):
        jobs.put(f"numbers/{number}.txt", str(number + 1))
    described = jobs.run(
        SCRIPT,
        files={"helper.py": "VALUE = 42"},
        hyperparameters={"epochs": "3", "name": json.dumps("a b")},
        InputDataConfig=[jobs.channel("train", f"s3://{BUCKET}/numbers")],
        Environment={"MY_ENV": "v", "SECRET_DIR": str(jobs.service.data_dir)},
        algorithm={"MetricDefinitions": [{"Name": "mse", "Regex": "train_mse=([0-9.]+);"}]},
        Tags=[{"Key": "team", "Value": "red"}],
    )
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    statuses = [item["Status"] for item in described["SecondaryStatusTransitions"]]
    assert statuses == [
        "Starting",
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert described["BillableTimeInSeconds"] >= 0
    [metric] = described["FinalMetricDataList"]
    assert (metric["MetricName"], round(metric["Value"], 4)) == ("mse", 0.3333)
    found = jobs.artifact(described["ModelArtifacts"]["S3ModelArtifacts"])
    result = json.loads(found["model.json"])
    assert (result["sum"], result["name"], result["helper"]) == (6, "a b", 42)
    assert (result["host"], result["cwd"]) == ("algo-1", "/opt/ml/code")
    assert result["sees"] == ["code", "input", "model", "output"]
    assert not result["data_dir"]
    environment = result["env"]
    assert environment["MY_ENV"] == "v"
    assert json.loads(environment["SM_HPS"]) == {"epochs": 3, "name": "a b"}
    assert not [name for name in environment if "STORE" in name or "SECRET_A" in name]
    name = described["TrainingJobName"]
    output = f"s3://{BUCKET}/out/{name}/output/output.tar.gz"
    assert jobs.artifact(output) == {"notes.txt": b"kept"}
    assert "epoch=2 train_mse=0.3333333333333333;" in jobs.lines(name)
    tags = jobs.sagemaker.list_tags(ResourceArn=described["TrainingJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "red"}]
    listed = jobs.sagemaker.list_training_jobs(NameContains=name)["TrainingJobSummaries"]
    assert [item["TrainingJobStatus"] for item in listed] == ["Completed"]
    assert list((jobs.service.data_dir / "jobs").iterdir()) == []
