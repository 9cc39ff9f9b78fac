"""Every fault of processing, transform and tuning jobs ends in a terminal state with a reason that
names the cause, and leaves nothing running. All run at once, as they would."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from ridgeline_jobs import ENDED, Jobs, running_jobs
from ridgeline_processing import Processing, objects
from ridgeline_testing import until
from ridgeline_transforms import Transforms
from ridgeline_tuning import create as create_tuning
from typer.testing import CliRunner

from ridgeline import ProcessingFailed, Session, TransformFailed, TuningFailed
from ridgeline._progress import SilentProgress
from ridgeline.cli.app import app
from ridgeline.processing_job import ProcessingJob
from ridgeline.transform_job import TransformJob
from ridgeline.tuning_job import TuningJob
from ridgeline_service.processes import find_by_command

sys.path.insert(0, str(Path(__file__).parent))

from batch_catalogue import (
    LOST,
    PROCESSING,
    READS,
    REFUSED,
    TRANSFORM,
    TUNING,
    Fault,
    ProcessingFault,
    TransformFault,
    TuningFault,
)

pytestmark = pytest.mark.e2e
FULL = bool(os.environ.get("RIDGELINE_CHAOS"))
# The first job of a runtime on a machine installs it.
_FIRST_JOB_S = 600
WANTED: list[Fault] = [
    fault for fault in (*PROCESSING, *TRANSFORM, *TUNING) if FULL or not fault.slow
]


def title(fault: Fault) -> str:
    return f"{type(fault).__name__.removesuffix('Fault').lower()}-{fault.name}"


class Ground:
    """A service, and what the jobs of all kinds find in it."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.processing = Processing(jobs)
        self.transforms = Transforms(jobs)
        self.session = Session(data_dir=jobs.service.data_dir, progress=SilentProgress())
        self.transforms.model("doubles")
        self.transforms.model("reads", READS)
        self.transforms.model("data-gone")
        jobs.s3.delete_object(**self._source_of("data-gone"))
        jobs.s3.create_bucket(Bucket=LOST)

    def start(self, fault: Fault) -> str:
        """The name of the fault's job."""
        request: dict[str, Any] = dict(fault.request)
        if isinstance(fault, ProcessingFault):
            secret = {"SECRET_DIR": str(self.jobs.service.data_dir)}
            environment = {**secret, **request.pop("Environment", {})}
            return self.processing.create(fault.script, Environment=environment, **request)
        if isinstance(fault, TransformFault):
            self.jobs.put(f"{fault.name}/x", fault.body)
            return self.transforms.create(fault.model, f"{fault.name}/", **request)
        assert isinstance(fault, TuningFault)
        config = {"ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 2}}
        create_tuning(self.jobs, fault.name, fault.script, config=config, **request)
        return fault.name

    def job(self, fault: Fault, name: str) -> ProcessingJob | TransformJob | TuningJob:
        for kind, client in (
            (ProcessingFault, ProcessingJob),
            (TransformFault, TransformJob),
            (TuningFault, TuningJob),
        ):
            if isinstance(fault, kind):
                return client(name, self.session)
        raise AssertionError(fault)

    def described(self, fault: Fault, name: str) -> dict[str, Any]:
        """Once it has ended, with its status under one name."""
        job = self.job(fault, name)

        def status() -> str:
            found = job.describe()
            return next(found[key] for key in found if key.endswith("JobStatus"))

        until(lambda: status() in ENDED, _FIRST_JOB_S)
        return {**job.describe(), "Status": status()}

    def lose_bucket(self) -> None:
        self.jobs.s3.delete_bucket(Bucket=LOST)

    def _source_of(self, model: str) -> dict[str, str]:
        found = self.jobs.sagemaker.describe_model(ModelName=model)
        bucket, _, key = (
            found["PrimaryContainer"]["ModelDataUrl"].removeprefix("s3://").partition("/")
        )
        return {"Bucket": bucket, "Key": key}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with running_jobs(tmp_path_factory.mktemp("faults") / "data") as running:
        yield Ground(running)


@pytest.fixture(scope="module")
def started(ground: Ground) -> dict[str, str]:
    """Names of the jobs of all faults, which run beside each other."""
    names = {title(fault): ground.start(fault) for fault in WANTED}
    for fault in WANTED:
        if isinstance(fault, ProcessingFault) and fault.begun:
            name = names[title(fault)]
            until(lambda name=name: ground.processing.says(name, "begun"), _FIRST_JOB_S)
            if fault.begun == "stop":
                ground.processing.sagemaker.stop_processing_job(ProcessingJobName=name)
            else:
                ground.lose_bucket()
    return names


@pytest.mark.parametrize("fault", WANTED, ids=title)
def test_a_fault_is_named(ground: Ground, started: dict[str, str], fault: Fault) -> None:
    described = ground.described(fault, started[title(fault)])
    reason = described.get("FailureReason", "")
    assert described["Status"] == fault.status, reason
    assert len(reason) <= 1024
    for words in fault.says:
        assert words in reason


@pytest.mark.parametrize("fault", [fault for fault in WANTED if fault.says], ids=title)
def test_the_sdk_and_the_command_line_name_it(
    ground: Ground, started: dict[str, str], fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = started[title(fault)]
    with pytest.raises((ProcessingFailed, TransformFailed, TuningFailed)) as caught:
        ground.job(fault, name).wait(timeout_s=120)
    monkeypatch.setenv("RIDGELINE_HOME", str(ground.jobs.service.data_dir))
    shown = CliRunner().invoke(app, ["describe", name], env={"COLUMNS": "4000"})
    assert shown.exit_code == 0, shown.output
    for words in fault.says:
        assert words in str(caught.value)
        assert words in shown.output


def test_nothing_of_a_fault_is_left(ground: Ground, started: dict[str, str]) -> None:
    for fault in WANTED:
        ground.described(fault, started[title(fault)])
    for place in ("empty/", "linked/"):
        assert objects(ground.processing, place) == {}
    for folder in ("jobs", "job-work"):
        root = ground.jobs.service.data_dir / folder
        until(lambda root=root: not list(root.glob("*")), 10)
        assert find_by_command(str(root)) == []


@pytest.mark.parametrize("words", REFUSED)
def test_what_can_never_run_is_refused_at_once(ground: Ground, words: str) -> None:
    kind, changes = REFUSED[words]
    create: dict[str, Callable[..., object]] = {
        "processing": lambda **given: ground.processing.create("print(1)", **given),
        "transform": lambda **given: ground.transforms.create("doubles", "many/", **given),
        "tuning": lambda **given: create_tuning(ground.jobs, "refused", **given),
    }
    with pytest.raises(ClientError) as caught:
        create[kind](**changes)
    assert words in str(caught.value)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
