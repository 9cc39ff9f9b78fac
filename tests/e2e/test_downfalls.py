"""A service that is killed whole, and a copy of the directory of one that runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from ridgeline_jobs import Jobs, running_jobs
from ridgeline_testing import Service, read_env, running_service, until

from ridgeline_service.paths import DataDir
from ridgeline_service.supervisor.state import read_state

pytestmark = pytest.mark.e2e

FOREVER = """
import time
print("begun", flush=True)
while True:
    time.sleep(0.1)
"""


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with running_jobs(tmp_path / "data") as running:
        yield running


def begin(jobs: Jobs) -> str:
    """A job that runs until it is stopped."""
    name = jobs.create(FOREVER)
    until(lambda: jobs.says(name, "begun"), 60)
    return name


def restarts(service: Service, name: str) -> int:
    sagemaker = service.client("sagemaker", retries=4)
    moments = sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatusTransitions"]
    return [each["Status"] for each in moments].count("Restarting")


def test_a_job_goes_on_after_every_process_was_killed(jobs: Jobs) -> None:
    name = begin(jobs)
    data_dir = jobs.service.data_dir
    state = read_state(DataDir(data_dir))
    assert state is not None
    shims = [json.loads(path.read_text())["pid"] for path in data_dir.glob("jobs/*/process.json")]
    for pid in (state.supervisor.pid, *(each.pid for each in state.children.values()), *shims):
        os.kill(pid, signal.SIGKILL)
    with running_service(data_dir, "--port", str(state.port)):
        until(lambda: restarts(jobs.service, name) == 1, 60)
        jobs.sagemaker.stop_training_job(TrainingJobName=name)
        assert jobs.wait(name)["TrainingJobStatus"] == "Stopped"


def test_a_copy_of_a_running_service_is_a_service_of_its_own(jobs: Jobs, tmp_path: Path) -> None:
    name = begin(jobs)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(jobs.service.data_dir), str(copy)], check=True)
    said = jobs.service.cli("down", "--data-dir", str(copy)).stdout
    assert "Nothing was running" in said
    with running_service(copy) as other:
        assert other.url != jobs.service.url
        until(lambda: restarts(other, name) == 1, 60)
    assert restarts(jobs.service, name) == 0
    assert jobs.describe(name)["TrainingJobStatus"] == "InProgress"
    assert read_env(jobs.service.data_dir)["AWS_ENDPOINT_URL"] == jobs.service.url
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    assert jobs.wait(name)["TrainingJobStatus"] == "Stopped"


def test_down_on_a_moved_directory_stops_its_own_service(tmp_path: Path) -> None:
    """And not the one that was started where it was, whose files those are."""
    home, moved = tmp_path / "home", tmp_path / "moved"
    with running_service(home) as first:
        home.rename(moved)
        try:
            with running_service(home) as second:
                assert "Stopped" in first.cli("down", "--data-dir", str(moved)).stdout
                assert not (moved / "run" / "supervisor.json").exists()
                with pytest.raises(OSError, match="refused"):
                    urllib.request.urlopen(first.url, timeout=5)
                assert read_env(home)["AWS_ENDPOINT_URL"] == second.url
                assert second.client("sagemaker").list_endpoints()["Endpoints"] == []
        finally:
            first.cli("down", "--data-dir", str(moved))
