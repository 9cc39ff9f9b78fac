"""Processing jobs for tests, in boto3's words."""

from __future__ import annotations

import uuid
from typing import Any

from botocore.exceptions import ClientError
from ridgeline_jobs import BUCKET, ENDED, IMAGE, Jobs
from ridgeline_testing import until

LOGS = "/aws/sagemaker/ProcessingJobs"


class Processing:
    """What a user does with processing jobs, in boto3's words."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.sagemaker = jobs.sagemaker

    def create(self, script: str, *, arguments: tuple[str, ...] = (), **changes: Any) -> str:
        name = f"processing-{uuid.uuid4().hex[:8]}"
        code = self.jobs.put(f"{name}/run.py", script)
        inputs = [source("code", code, "/opt/ml/processing/input/code")]
        application: dict[str, Any] = {
            "ImageUri": IMAGE,
            "ContainerEntrypoint": changes.pop(
                "entrypoint", ["python3", "/opt/ml/processing/input/code/run.py"]
            ),
        }
        if arguments:
            application["ContainerArguments"] = list(arguments)
        self.sagemaker.create_processing_job(
            **{
                "ProcessingJobName": name,
                "RoleArn": self.jobs.service.role,
                "AppSpecification": application,
                "ProcessingInputs": inputs + changes.pop("inputs", []),
                "ProcessingOutputConfig": {"Outputs": changes.pop("outputs", [])},
                "ProcessingResources": cluster(changes.pop("count", 1)),
                "StoppingCondition": {"MaxRuntimeInSeconds": 600},
                **changes,
            }
        )
        return name

    def describe(self, name: str) -> dict[str, Any]:
        return self.sagemaker.describe_processing_job(ProcessingJobName=name)

    def wait(self, name: str, timeout_s: float = 60) -> dict[str, Any]:
        until(lambda: self.describe(name)["ProcessingJobStatus"] in ENDED, timeout_s)
        return self.describe(name)

    def run(self, script: str, **changes: Any) -> dict[str, Any]:
        return self.wait(self.create(script, **changes))

    def says(self, name: str, text: str) -> bool:
        try:
            return any(text in line for line in self.jobs.lines(name, LOGS))
        except ClientError:
            return False


def source(name: str, uri: str, path: str, **more: str) -> dict[str, Any]:
    return {
        "InputName": name,
        "S3Input": {
            "S3Uri": uri,
            "LocalPath": path,
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
            **more,
        },
    }


def output(name: str, path: str, uri: str, mode: str = "EndOfJob") -> dict[str, Any]:
    target = {"S3Uri": uri, "LocalPath": path, "S3UploadMode": mode}
    return {"OutputName": name, "S3Output": target}


def cluster(count: int) -> dict[str, Any]:
    return {
        "ClusterConfig": {
            "InstanceType": "ml.m5.large",
            "InstanceCount": count,
            "VolumeSizeInGB": 5,
        }
    }


def objects(processing: Processing, prefix: str) -> dict[str, bytes]:
    """Bodies by key, without the prefix."""
    s3 = processing.jobs.s3
    found = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
    return {
        item["Key"].removeprefix(prefix): s3.get_object(Bucket=BUCKET, Key=item["Key"])[
            "Body"
        ].read()
        for item in found
    }
