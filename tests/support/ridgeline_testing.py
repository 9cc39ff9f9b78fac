"""A real service for tests: started by the command a user types, stopped by its process ids."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config

from ridgeline_service.processes import find_by_command

REPOSITORY = Path(__file__).parents[2]
RIDGELINE = str(Path(sys.executable).with_name("ridgeline"))
DJL_IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.30.0-lmi12.0.0-cu124"
PYTORCH_IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312"


@dataclass(frozen=True)
class Service:
    """A running service and what its users would have in their shell."""

    data_dir: Path
    variables: dict[str, str]

    @property
    def url(self) -> str:
        return self.variables["AWS_ENDPOINT_URL"]

    @property
    def api_key(self) -> str:
        return self.variables["OPENAI_API_KEY"]

    @property
    def role(self) -> str:
        return self.variables["RIDGELINE_ROLE_ARN"]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a shell that evaluated ``ridgeline env``, and nothing else of AWS."""
        return shell_environment() | self.variables

    def client(self, name: str, *, retries: int = 0, read_timeout: float = 120.0):
        """An unmodified boto3 client."""
        return boto3.client(
            name,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.variables["AWS_SECRET_ACCESS_KEY"],
            config=Config(
                retries={"total_max_attempts": retries + 1},
                read_timeout=read_timeout,
                max_pool_connections=128,
            ),
        )

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RIDGELINE, *arguments],
            env=shell_environment() | {"RIDGELINE_HOME": str(self.data_dir)},
            capture_output=True,
            text=True,
            check=check,
            timeout=180,
        )

    def deploy(
        self,
        name: str,
        model: str = "tiny-llama-seeded",
        *,
        count: int = 1,
        instance_type: str = "ml.m5.large",
        **environment: str,
    ) -> None:
        """Create model, config and endpoint as boto3 does, and wait until it is in service."""
        sagemaker = self.client("sagemaker")
        sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=self.role,
            PrimaryContainer={
                "Image": DJL_IMAGE,
                "Environment": {"HF_MODEL_ID": model, **environment},
            },
        )
        sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[{**variant(name, count=count), "InstanceType": instance_type}],
        )
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        self.wait_in_service(name)

    def wait_in_service(self, name: str, timeout_s: float = 120.0) -> None:
        sagemaker = self.client("sagemaker", retries=4)

        def settled() -> bool:
            answer = sagemaker.describe_endpoint(EndpointName=name)
            assert answer["EndpointStatus"] != "Failed", answer["FailureReason"]
            return bool(answer["EndpointStatus"] == "InService")

        until(settled, timeout_s)

    def delete(self, name: str) -> None:
        sagemaker = self.client("sagemaker", retries=4)
        sagemaker.delete_endpoint(EndpointName=name)
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
        sagemaker.delete_model(ModelName=name)


def variant(model: str, *, name: str = "AllTraffic", count: int = 1, weight: float = 1.0) -> dict:
    return {
        "VariantName": name,
        "ModelName": model,
        "InitialInstanceCount": count,
        "InstanceType": "ml.m5.large",
        "InitialVariantWeight": weight,
    }


def until(condition: Callable[[], bool], timeout_s: float, every_s: float = 0.1) -> None:
    """Wait for something that other processes bring about; fails when it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not so after {timeout_s} s: {condition.__qualname__}"
        time.sleep(every_s)


def shell_environment() -> dict[str, str]:
    """This process's environment without AWS, OpenAI and Ridgeline settings; a shared cache."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "OPENAI_", "RIDGELINE_", "SAGEMAKER_"))
    }
    return kept | {
        "RIDGELINE_CACHE": os.environ.get("RIDGELINE_CACHE", str(REPOSITORY / ".cache" / "tests"))
    }


def end_tidily_when_told() -> None:
    """Let SIGTERM end a script through its ``finally`` clauses, so that it stops its service."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


@contextmanager
def running_service(data_dir: Path, *options: str) -> Iterator[Service]:
    """``ridgeline up`` on a free port; ``down`` at the end, and proof that nothing is left."""
    command = [RIDGELINE, "up", "--detach", "--port", "0", "--data-dir", str(data_dir), *options]
    try:
        subprocess.run(command, env=shell_environment(), check=True, timeout=90)
        yield Service(data_dir, read_env(data_dir))
    finally:
        subprocess.run(
            [RIDGELINE, "down", "--data-dir", str(data_dir)],
            env=shell_environment(),
            check=True,
            timeout=90,
        )
    left = find_by_command(str(data_dir))
    assert left == [], f"processes left behind: {left}"


def read_env(data_dir: Path, *options: str) -> dict[str, str]:
    """What ``ridgeline env`` sets."""
    answer = subprocess.run(
        [RIDGELINE, "env", "--json", "--data-dir", str(data_dir), *options],
        env=shell_environment(),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    variables: dict[str, str] = json.loads(answer.stdout)
    return variables
