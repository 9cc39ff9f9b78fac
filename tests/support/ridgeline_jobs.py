"""Training jobs for tests, in boto3's words, against a service whose stops take seconds."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from ridgeline_testing import Service, running_service, until

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-cpu-py312"
BUCKET = "training-bucket"
LOGS = "/aws/sagemaker/TrainingJobs"
ENDED = ("Completed", "Failed", "Stopped")


@contextmanager
def running_jobs(data_dir: Path, **settings: object) -> Iterator[Jobs]:
    """A service whose stopped jobs have 2 s of grace instead of 120."""
    data_dir.mkdir(parents=True)
    values = {"job_stop_grace_s": 2.0, **settings}
    (data_dir / "settings.json").write_text(json.dumps(values))
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
        until(lambda: self.describe(name)["TrainingJobStatus"] in ENDED, timeout_s)
        return self.describe(name)

    def run(self, script: str, **changes: Any) -> dict[str, Any]:
        return self.wait(self.create(script, **changes))

    def artifact(self, uri: str) -> dict[str, bytes]:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        body = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}

    def lines(self, name: str, group: str = LOGS) -> list[str]:
        found: list[str] = []
        streams = self.logs.describe_log_streams(
            logGroupName=group, logStreamNamePrefix=f"{name}/"
        )["logStreams"]
        for stream in streams:
            token: dict[str, str] = {}
            while True:
                page = self.logs.get_log_events(
                    logGroupName=group,
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
