"""Compilation and recommendation jobs: their verbs, and a life that ends in one of four ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ridgeline_service.control.command_jobs.advising import Advising
from ridgeline_service.control.command_jobs.compilation import CompilationJobs
from ridgeline_service.control.command_jobs.life import (
    Cancelled,
    CommandCancelled,
    CommandFailed,
    CommandLife,
)
from ridgeline_service.control.command_jobs.recommendations import RecommendationsJobs
from ridgeline_service.control.context import Context
from ridgeline_service.control.models import Models
from ridgeline_service.errors import ResourceInUse, ValidationException
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings
from ridgeline_service.store import command_jobs as rows
from ridgeline_service.store import open_database
from ridgeline_service.store.command_jobs import CommandJob, CommandKind

ROLE = "arn:aws:iam::000000000000:role/any"


class Now:
    seconds = 1_700_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def context(tmp_path: Path, now: Now) -> Iterator[Context]:
    settings, data_dir = Settings(), DataDir(tmp_path)
    database = open_database(settings, data_dir)
    yield Context(database, settings, data_dir, now, iter("abcdefgh").__next__, lambda: None)
    database.close()


def request(name: str = "c", **changes: Any) -> dict[str, Any]:
    source = {"S3Uri": "s3://b/model.tar.gz", "Framework": "PYTORCH"}
    output = {"S3OutputLocation": "s3://b/out", "TargetDevice": "ml_inf2"}
    return {
        "CompilationJobName": name,
        "RoleArn": ROLE,
        "InputConfig": {**source, **changes.pop("source", {})},
        "OutputConfig": {**output, **changes.pop("output", {})},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **changes,
    }


def lived(context: Context, work: Any, *, holder: str = "me", claim: str = "me") -> dict[str, Any]:
    """A compilation job after its step, as it is described."""
    jobs = CompilationJobs(context)
    jobs.create(request())
    with context.db.write() as connection:
        [job] = rows.living_command_jobs(connection)
        expires = context.now() + 10_000_000
        rows.CLAIMS.take(
            connection, job.arn, claim, now=0, expires_at=expires, holder_is_dead=lambda _: False
        )
    CommandLife(context, holder=holder, work={CommandKind.COMPILATION: work}).step(job)
    return jobs.describe({"CompilationJobName": "c"})


def gives(job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
    return {"artifacts": "s3://b/out/x", "digest": "d", "inputs": "{}", "image": ""}


def test_a_command_that_ends_well_completes_its_job(context: Context) -> None:
    found = lived(context, gives)
    assert found["CompilationJobStatus"] == "COMPLETED"
    assert found["ModelArtifacts"] == {"S3ModelArtifacts": "s3://b/out/x"}
    assert found["FailureReason"] == ""


def test_what_the_command_cannot_do_is_the_reason(context: Context) -> None:
    def fails(job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        raise CommandFailed("ClientError: no such operator")

    found = lived(context, fails)
    assert found["CompilationJobStatus"] == "FAILED"
    assert found["FailureReason"] == "ClientError: no such operator"


def test_a_job_that_is_stopped_while_it_runs_stops(context: Context) -> None:
    def stopped(job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        CompilationJobs(context).stop({"CompilationJobName": "c"})
        assert cancelled()
        raise CommandCancelled

    assert lived(context, stopped)["CompilationJobStatus"] == "STOPPED"


def test_a_job_that_runs_too_long_fails(context: Context, now: Now) -> None:
    def slow(job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        assert not cancelled()
        now.seconds += 61
        assert cancelled()
        raise CommandCancelled

    found = lived(context, slow)
    assert found["CompilationJobStatus"] == "FAILED"
    assert "longer than 60 seconds" in found["FailureReason"]


def test_who_lost_the_claim_writes_nothing(context: Context) -> None:
    assert lived(context, gives, claim="another")["CompilationJobStatus"] == "STARTING"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": {"Framework": "MXNET"}}, "MXNET is not compiled here"),
        ({"output": {"TargetDevice": "ml_c5"}}, "Nothing is compiled for 'ml_c5'"),
        ({"output": {"CompilerOptions": "--turbo on"}}, "--turbo on is not one there is"),
        ({"source": {"DataInputConfig": '{"x": [0]}'}}, "static"),
        ({"source": {"S3Uri": "https://b/m"}}, "is no S3 URI"),
    ],
)
def test_what_can_never_be_compiled_is_refused_at_once(
    context: Context, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationException) as refused:
        CompilationJobs(context).create(request(**changes))
    assert said in f"{refused.value.message} {refused.value.hint}"


def test_a_name_is_taken_once_and_a_living_job_is_not_deleted(context: Context) -> None:
    jobs = CompilationJobs(context)
    jobs.create(request())
    with pytest.raises(ResourceInUse, match="already exists"):
        jobs.create(request())
    with pytest.raises(ResourceInUse, match="STARTING"):
        jobs.delete({"CompilationJobName": "c"})


def test_a_latency_limit_leaves_out_what_is_too_slow(context: Context) -> None:
    """1 ms is met by nobody, and each step says what it takes."""
    Models(context).create(
        {
            "ModelName": "llama",
            "ExecutionRoleArn": ROLE,
            "PrimaryContainer": {"Image": "i", "Environment": {"HF_MODEL_ID": "llama-3.1-8b"}},
        }
    )
    jobs = RecommendationsJobs(context)
    asked = {
        "JobName": "r",
        "JobType": "Advanced",
        "RoleArn": ROLE,
        "InputConfig": {
            "ModelName": "llama",
            "EndpointConfigurations": [{"InstanceType": "ml.inf2.48xlarge"}],
        },
    }
    jobs.create(asked)
    with context.db.read() as connection:
        [job] = rows.living_command_jobs(connection)
    advising = Advising(context, lambda: None)
    [found] = advising(job, lambda: False)["recommendations"]
    assert found["metrics"]["CostPerInference"] > 0
    limit = {"ModelLatencyThresholds": [{"Percentile": "P95", "ValueInMilliseconds": 1}]}
    tight = CommandJob(**{**job.__dict__, "request": {**asked, "StoppingConditions": limit}})
    with pytest.raises(
        CommandFailed, match=r"95% of the requests of 1 users take \d+ ms, the limit is 1 ms"
    ):
        advising(tight, lambda: False)
    with pytest.raises(ValidationException, match="EndpointConfigurations"):
        jobs.create({**asked, "InputConfig": {"ModelName": "llama"}})
