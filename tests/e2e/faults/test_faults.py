"""Every fault of the catalogue ends in a terminal state with a reason that names the cause, and
leaves nothing running. All run at once, as they would."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from ridgeline_jobs import Jobs, running_jobs
from ridgeline_testing import until
from typer.testing import CliRunner

from ridgeline import Session, TrainingFailed
from ridgeline._progress import SilentProgress
from ridgeline.cli.app import app
from ridgeline.training_job import TrainingJob
from ridgeline_service.processes import find_by_command

sys.path.insert(0, str(Path(__file__).parent))

from catalogue import FAULTS, REFUSED, Fault

pytestmark = pytest.mark.e2e
WANTED = [fault for fault in FAULTS if not fault.slow or os.environ.get("RIDGELINE_CHAOS")]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with running_jobs(tmp_path_factory.mktemp("faults") / "data") as running:
        running.put("faults/data/a.csv", "1,2")
        running.put("faults/both/a", "1")
        running.put("faults/both/a/b", "2")
        yield running


@pytest.fixture(scope="module")
def started(jobs: Jobs) -> dict[str, str]:
    """Names of the jobs of all faults, which run beside each other."""
    names = {}
    for fault in WANTED:
        request = dict(fault.request)
        environment = {
            **request.pop("Environment", {}),
            "SECRET": str(jobs.service.data_dir / "root-key.json"),
            "SECRET_DIR": str(jobs.service.data_dir),
            "SERVICE": jobs.service.url.removeprefix("http://"),
        }
        if fault.archive is not None:
            uri = jobs.put(f"faults/{fault.name}.tar.gz", fault.archive)
            request["hyperparameters"] = {"sagemaker_submit_directory": f'"{uri}"'}
        names[fault.name] = jobs.create(
            fault.script, files=fault.files, Environment=environment, **request
        )
    return names


@pytest.mark.parametrize("fault", WANTED, ids=lambda fault: fault.name)
def test_a_fault_is_named(jobs: Jobs, started: dict[str, str], fault: Fault) -> None:
    name = started[fault.name]
    described = jobs.wait(name, 120)
    reason = described.get("FailureReason", "")
    assert described["TrainingJobStatus"] == fault.status, reason
    assert described["SecondaryStatus"] == (fault.secondary or fault.status)
    assert len(reason) <= 1024
    for words in fault.says:
        assert words in reason
    for words in fault.never:
        assert words not in reason
        assert not any(words in line for line in jobs.lines(name))
    if fault.name == "model-is-a-link":
        assert jobs.artifact(described["ModelArtifacts"]["S3ModelArtifacts"]) == {}
    if fault.name == "loss-is-no-number":
        assert "FinalMetricDataList" not in described


@pytest.mark.parametrize(
    "fault", [fault for fault in WANTED if fault.says], ids=lambda fault: fault.name
)
def test_the_sdk_and_the_command_line_name_it(
    jobs: Jobs, started: dict[str, str], fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(data_dir=jobs.service.data_dir, progress=SilentProgress())
    with pytest.raises(TrainingFailed) as caught:
        TrainingJob(started[fault.name], session).wait(timeout_s=120)
    monkeypatch.setenv("RIDGELINE_HOME", str(jobs.service.data_dir))
    shown = CliRunner().invoke(app, ["describe", started[fault.name]], env={"COLUMNS": "4000"})
    assert shown.exit_code == 0, shown.output
    for words in fault.says:
        assert words in str(caught.value)
        assert words in shown.output


def test_nothing_of_a_fault_is_left_running(jobs: Jobs, started: dict[str, str]) -> None:
    for name in started.values():
        jobs.wait(name, 120)
    root = jobs.service.data_dir / "jobs"
    until(lambda: not list(root.iterdir()), 10)
    assert find_by_command(str(root)) == []


@pytest.mark.parametrize("words", REFUSED)
def test_what_can_never_run_is_refused_at_once(jobs: Jobs, words: str) -> None:
    algorithm, request = REFUSED[words]
    with pytest.raises(ClientError, match=words) as caught:
        jobs.create("print(1)", algorithm=algorithm, **request)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
