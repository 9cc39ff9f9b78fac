"""Unmodified boto3 against a running service: jobs that leave their runners to the next one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from ridgeline_jobs import Jobs, running_jobs
from ridgeline_testing import until

from ridgeline_service.processes import find_by_command

pytestmark = pytest.mark.e2e

SCRIPT = "import time; print(f'begins {time.time()}', flush=True)"


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with running_jobs(tmp_path_factory.mktemp("warm") / "data") as running:
        yield running


def create(jobs: Jobs, name: str, seconds: int, script: str = SCRIPT) -> None:
    resources = {
        "InstanceType": "ml.m5.large",
        "InstanceCount": 1,
        "VolumeSizeInGB": 5,
        "KeepAlivePeriodInSeconds": seconds,
    }
    jobs.create(script, name=name, ResourceConfig=resources)


def pool(jobs: Jobs, name: str) -> dict[str, Any]:
    found: dict[str, Any] = jobs.describe(name)["WarmPoolStatus"]
    return found


def waiting(jobs: Jobs) -> list[int]:
    """Runners of this service that run."""
    found = find_by_command("ridgeline_service.training")
    home = str(jobs.service.data_dir)
    return [each.pid for each in found if home in " ".join(psutil.Process(each.pid).cmdline())]


def wait_until_warm(jobs: Jobs, name: str) -> None:
    """Until its runner has said that it is ready."""
    folder = jobs.service.data_dir / "jobs"
    until(lambda: pool(jobs, name)["Status"] == "Available", 20)
    until(lambda: any((each / "ready").exists() for each in folder.iterdir()), 20)


def test_the_second_job_starts_at_once_even_if_the_control_plane_was_killed(jobs: Jobs) -> None:
    create(jobs, "first", 600)
    assert pool(jobs, "first") == {"Status": "InUse"}
    assert jobs.wait("first")["TrainingJobStatus"] == "Completed"
    wait_until_warm(jobs, "first")
    [runner] = waiting(jobs)
    for plane in find_by_command("ridgeline_service.api"):
        if str(jobs.service.data_dir) in " ".join(psutil.Process(plane.pid).cmdline()):
            psutil.Process(plane.pid).kill()
    create(jobs, "second", 600)
    described = jobs.wait("second")
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    found = pool(jobs, "first")
    assert (found["Status"], found["ReusedByJob"]) == ("Reused", "second")
    [line] = [line for line in jobs.lines("second") if line.startswith("begins ")]
    assert float(line.split()[1]) - described["CreationTime"].timestamp() < 1.5
    assert len(jobs.lines("first")) == len(jobs.lines("second"))
    assert runner not in waiting(jobs), "a runner serves one job"
    listed = jobs.sagemaker.list_training_jobs(WarmPoolStatusEquals="Reused")
    assert [each["TrainingJobName"] for each in listed["TrainingJobSummaries"]] == ["first"]
    wait_until_warm(jobs, "second")
    jobs.sagemaker.update_training_job(
        TrainingJobName="second", ResourceConfig={"KeepAlivePeriodInSeconds": 0}
    )
    until(lambda: pool(jobs, "second")["Status"] == "Terminated", 20)
    until(lambda: waiting(jobs) == [], 20)


def test_a_pool_ends_with_its_time_and_none_follows_a_failure(jobs: Jobs) -> None:
    create(jobs, "short", 2)
    create(jobs, "failing", 600, "raise SystemExit(3)")
    jobs.wait("short")
    jobs.wait("failing")
    until(lambda: pool(jobs, "failing")["Status"] == "Terminated", 20)
    until(lambda: pool(jobs, "short")["Status"] == "Terminated", 20)
    until(lambda: waiting(jobs) == [], 20)
    assert pool(jobs, "short")["ResourceRetainedBillableTimeInSeconds"] >= 1


def test_a_service_that_goes_down_leaves_no_runner_that_waits(jobs: Jobs) -> None:
    """The fixture's end proves that nothing is left."""
    create(jobs, "left", 600)
    jobs.wait("left")
    wait_until_warm(jobs, "left")
    assert len(waiting(jobs)) == 1
