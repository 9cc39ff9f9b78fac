"""Transform jobs for tests, in boto3's words, with a model that answers each line of its input."""

from __future__ import annotations

import json
import uuid
from typing import Any

from botocore.exceptions import ClientError
from ridgeline_jobs import BUCKET, ENDED, Jobs
from ridgeline_testing import PYTORCH_IMAGE, until

LOGS = "/aws/sagemaker/TransformJobs"

# Doubles the number in each line; says which lines it was asked for; obeys words among them.
MODEL = """
import json, os, time

def model_fn(model_dir):
    if os.environ.get("LOAD_FAILS"):
        raise RuntimeError("the weights are torn")
    if os.environ.get("LOAD_DIES"):
        os._exit(3)
    return 2.0

def transform_fn(model, body, content_type, accept):
    text = body if isinstance(body, str) else body.decode()
    lines = text.splitlines()
    time.sleep(float(os.environ.get("TAKES_S", "0")))
    answers = []
    for line in lines:
        if "refuse" in line:
            raise ValueError("no number in " + line)
        if "die" in line:
            time.sleep(float(os.environ.get("DIES_AFTER_S", "0")))
            os._exit(3)
        value = json.loads(line.split(",")[-1])
        print("asked", line, os.environ.get("SAGEMAKER_BATCH_STRATEGY"), flush=True)
        answers.append(json.dumps({"y": value * model}) if "json" in accept else str(value * model))
    return "\\n".join(answers), accept
"""


class Transforms:
    """What a user does with transform jobs."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.sagemaker = jobs.sagemaker

    def model(self, name: str, script: str = MODEL, **environment: str) -> str:
        self.jobs.code(f"models/{name}", {"code/inference.py": script})
        data = f"s3://{BUCKET}/models/{name}/source/sourcedir.tar.gz"
        self.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=self.jobs.service.role,
            PrimaryContainer={
                "Image": PYTORCH_IMAGE,
                "ModelDataUrl": data,
                "Environment": environment,
            },
        )
        return name

    def create(self, model: str, prefix: str, **changes: Any) -> str:
        name = f"transform-{uuid.uuid4().hex[:8]}"
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{prefix}"}
        self.sagemaker.create_transform_job(
            **{
                "TransformJobName": name,
                "ModelName": model,
                "TransformInput": {
                    "DataSource": {"S3DataSource": source | changes.pop("source", {})},
                    "ContentType": "text/csv",
                    "SplitType": "Line",
                    **changes.pop("input", {}),
                },
                "TransformOutput": {
                    "S3OutputPath": f"s3://{BUCKET}/out/{name}",
                    "AssembleWith": "Line",
                    "Accept": "text/csv",
                    **changes.pop("output", {}),
                },
                "TransformResources": {
                    "InstanceType": "ml.m5.large",
                    "InstanceCount": changes.pop("count", 1),
                },
                **changes,
            }
        )
        return name

    def describe(self, name: str) -> dict[str, Any]:
        return self.sagemaker.describe_transform_job(TransformJobName=name)

    def wait(self, name: str, timeout_s: float = 90) -> dict[str, Any]:
        until(lambda: self.describe(name)["TransformJobStatus"] in ENDED, timeout_s)
        return self.describe(name)

    def completed(self, name: str, timeout_s: float = 90) -> dict[str, str]:
        """The outputs of a job that is waited for, by key."""
        described = self.wait(name, timeout_s)
        reason = described.get("FailureReason")
        assert described["TransformJobStatus"] == "Completed", reason
        return self.outputs(name)

    def outputs(self, name: str) -> dict[str, str]:
        s3, prefix = self.jobs.s3, f"out/{name}/"
        found = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
        return {
            item["Key"].removeprefix(prefix): s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"]
            .read()
            .decode()
            for item in found
        }

    def asked(self, name: str) -> list[str]:
        """The lines that the model server was asked for, as its log tells."""
        try:
            lines = self.jobs.lines(name, LOGS)
        except ClientError:
            return []
        return [line.split()[1] for line in lines if line.startswith("asked ")]


def numbered(count: int) -> str:
    return "".join(f"{number}\n" for number in range(count))


def doubled(count: int) -> str:
    return "".join(f"{number * 2.0}\n" for number in range(count))


def json_lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]
