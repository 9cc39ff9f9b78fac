"""``ridgeline up``, ``env`` and ``down`` as a user meets them."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from ridgeline_testing import RIDGELINE, Service, read_env, running_service, shell_environment

pytestmark = pytest.mark.e2e


def ridgeline(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RIDGELINE, *arguments],
        env=shell_environment() | environment,
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_a_second_up_says_that_it_is_running(service: Service) -> None:
    answer = ridgeline("up", "--detach", "--port", "0", "--data-dir", str(service.data_dir))
    assert answer.returncode != 0
    assert "already running" in answer.stderr
    assert service.url in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        answer = ridgeline("up", "--detach", "--port", port, "--data-dir", str(tmp_path / "d"))
    assert answer.returncode != 0
    assert f"Port {port}" in answer.stderr
    assert "--port" in answer.stderr


def test_env_is_for_eval_and_complete(service: Service) -> None:
    shell = subprocess.run(
        ["sh", "-c", f'eval "$({RIDGELINE} env --data-dir "{service.data_dir}")"; env'],
        env=shell_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    variables = dict(line.split("=", 1) for line in shell.stdout.splitlines() if "=" in line)
    wanted = {
        "RIDGELINE_HOME",
        "AWS_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
        "SAGEMAKER_USER_CONFIG_OVERRIDE",
        "OPENAI_BASE_URL",
        "OPENAI_API_KEY",
        "RIDGELINE_ROLE_ARN",
    }
    assert wanted <= set(variables)
    assert variables["AWS_REGION"] == "us-east-1"
    assert Path(variables["SAGEMAKER_USER_CONFIG_OVERRIDE"]).is_file()
    role = variables["RIDGELINE_ROLE_ARN"].rpartition("/")[2]
    trust = service.client("iam").get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    assert "sagemaker.amazonaws.com" in str(trust)


def test_secrets_are_private(service: Service) -> None:
    for name in ("root-key.json", "run/snapshot.json", "run/internal-key"):
        mode = stat.S_IMODE((service.data_dir / name).stat().st_mode)
        assert mode == 0o600, f"{name} has mode {mode:o}"


def test_ctrl_c_stops_everything_and_data_is_kept(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    command = [RIDGELINE, "up", "--port", "0", "--data-dir", str(data_dir)]
    with subprocess.Popen(
        command,
        env=shell_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert any("ready" in line for line in process.stdout)
        running = Service(data_dir, read_env(data_dir))
        running.client("s3").create_bucket(Bucket="kept")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
    with running_service(data_dir) as again:
        buckets = [bucket["Name"] for bucket in again.client("s3").list_buckets()["Buckets"]]
        assert "kept" in buckets
        assert again.variables["AWS_ACCESS_KEY_ID"] == running.variables["AWS_ACCESS_KEY_ID"]


def test_down_when_nothing_runs(tmp_path: Path) -> None:
    answer = ridgeline("down", "--data-dir", str(tmp_path))
    assert answer.returncode == 0
    assert "Nothing was running" in answer.stdout


def test_doctor_names_backend_and_sandbox(tmp_path: Path) -> None:
    answer = ridgeline("doctor", "--data-dir", str(tmp_path))
    assert "cpu" in answer.stdout
    assert "sandbox" in answer.stdout.lower()
    assert "Traceback" not in answer.stdout + answer.stderr
