"""Compilation jobs: their verbs, and a life that ends in one of four ways."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from ridgeline_service.control.command_jobs.compilation import CompilationJobs
from ridgeline_service.control.command_jobs.life import (
    Cancelled,
    CommandCancelled,
    CommandFailed,
    CommandLife,
)
from ridgeline_service.control.context import Context
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


def life(context: Context, work: Any, *, holder: str = "me", at_once: int = 2) -> CommandLife:
    kinds = {CommandKind.COMPILATION: work}
    return CommandLife(context, holder=holder, work=kinds, at_once=at_once)


def claimed(context: Context, claim: str = "me") -> list[CommandJob]:
    """The living jobs, each claimed."""
    with context.db.write() as connection:
        jobs = rows.living_command_jobs(connection)
        expires = context.now() + 10_000_000
        for job in jobs:
            rows.CLAIMS.take(
                connection,
                job.arn,
                claim,
                now=0,
                expires_at=expires,
                holder_is_dead=lambda _: False,
            )
    return jobs


def lived(context: Context, work: Any, *, holder: str = "me", claim: str = "me") -> dict[str, Any]:
    """A compilation job after its step, as it is described."""
    jobs = CompilationJobs(context)
    jobs.create(request())
    [job] = claimed(context, claim)
    life(context, work, holder=holder).step(job)
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


def test_time_counts_from_the_first_attempt_and_ends_every_path(context: Context, now: Now) -> None:
    """A database that was away has the job begun again; its end is not put off by that."""

    def away(job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        now.seconds += 40
        raise OperationalError("SELECT", {}, Exception("away"))

    jobs = CompilationJobs(context)
    jobs.create(request())
    [job] = claimed(context)
    with pytest.raises(OperationalError):
        life(context, away).step(job)
    assert jobs.describe({"CompilationJobName": "c"})["CompilationJobStatus"] == "INPROGRESS"

    def never_looks(job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        now.seconds += 21
        return gives(job, cancelled)

    [job] = claimed(context)
    life(context, never_looks).step(job)
    found = jobs.describe({"CompilationJobName": "c"})
    assert found["CompilationJobStatus"] == "FAILED"
    assert "longer than 60 seconds" in found["FailureReason"]


def test_a_job_whose_time_went_by_while_nobody_ran_it_fails(context: Context, now: Now) -> None:
    def away(job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        now.seconds += 61
        raise OperationalError("SELECT", {}, Exception("away"))

    CompilationJobs(context).create(request())
    [job] = claimed(context)
    with pytest.raises(OperationalError):
        life(context, away).step(job)
    [job] = claimed(context)
    life(context, lambda job, cancelled: pytest.fail("it was begun again")).step(job)
    found = CompilationJobs(context).describe({"CompilationJobName": "c"})
    assert "longer than 60 seconds" in found["FailureReason"]


def test_a_bug_ends_the_job_and_its_traceback_is_logged(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        raise KeyError("modules")

    found = lived(context, broken)
    assert found["CompilationJobStatus"] == "FAILED"
    assert found["FailureReason"].startswith("InternalServerError: KeyError: 'modules'")
    assert "Traceback" not in found["FailureReason"]
    assert "Traceback" in caplog.text


def test_a_statement_of_ours_that_is_wrong_ends_the_job_too(context: Context) -> None:
    """SQLite raises for it what it raises when it is away: the job was begun again and again."""

    def broken(job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        with sqlite3.connect(":memory:") as connection:
            try:
                connection.execute("SELECT 1 FROM nowhere")
            except sqlite3.OperationalError as error:
                raise OperationalError("SELECT", {}, error) from error
        raise AssertionError

    found = lived(context, broken)
    assert found["CompilationJobStatus"] == "FAILED"
    assert "no such table" in found["FailureReason"]


def test_a_reason_that_no_database_takes_ends_the_job_all_the_same(context: Context) -> None:
    """Names of files may be no text, and what a command says may hold anything."""

    def broken(job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        raise CommandFailed("ClientError: mod\udce8l.pt and \0 cannot be read.")

    found = lived(context, broken)
    assert found["CompilationJobStatus"] == "FAILED"
    assert found["FailureReason"] == "ClientError: mod?l.pt and \ufffd cannot be read."


def test_a_result_that_cannot_be_kept_ends_the_job(context: Context) -> None:
    def odd(job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        return {"modules": object()}

    found = lived(context, odd)
    assert found["CompilationJobStatus"] == "FAILED"
    assert found["FailureReason"] == "InternalServerError: What the job gave cannot be kept."


def test_jobs_wait_for_those_before_them(context: Context, now: Now) -> None:
    """One at a time here: the second is not begun, and its time not counted, until then."""
    jobs = CompilationJobs(context)
    jobs.create(request("a"))
    now.seconds += 1
    jobs.create(request("b"))
    first, second = claimed(context)
    begun: list[str] = []

    def work(job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        begun.append(job.name)
        if job.name == "a":
            assert one.step(second), "it looks again"
            now.seconds += 59
        return gives(job, cancelled)

    one = life(context, work, at_once=1)
    one.step(first)
    found = jobs.describe({"CompilationJobName": "b"})
    assert (begun, found["CompilationJobStatus"]) == (["a"], "STARTING")
    assert "CompilationStartTime" not in found
    now.seconds += 60
    [second] = claimed(context)
    assert one.step(second) is None
    found = jobs.describe({"CompilationJobName": "b"})
    assert (begun, found["CompilationJobStatus"]) == (["a", "b"], "COMPLETED")


def test_a_job_that_waits_is_stopped_at_once(context: Context, now: Now) -> None:
    jobs = CompilationJobs(context)
    jobs.create(request("a"))
    now.seconds += 1
    jobs.create(request("b"))
    jobs.stop({"CompilationJobName": "b"})
    _, second = claimed(context)
    assert life(context, gives, at_once=1).step(second) is None
    assert jobs.describe({"CompilationJobName": "b"})["CompilationJobStatus"] == "STOPPED"


def test_who_lost_the_claim_writes_nothing(context: Context) -> None:
    assert lived(context, gives, claim="another")["CompilationJobStatus"] == "STARTING"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": {"Framework": "MXNET"}}, "MXNET is not compiled here"),
        ({"output": {"TargetDevice": "ml_c5"}}, "Nothing is compiled for 'ml_c5'"),
        ({"output": {"CompilerOptions": "--turbo on"}}, "--turbo on is not one there is"),
        ({"source": {"DataInputConfig": '{"x": [0]}'}}, "static"),
        ({"source": {"S3Uri": "https://b/m"}}, "'https://b/m' is no S3 URI"),
        ({"source": {"S3Uri": "s3://walkb"}}, "InputConfig.S3Uri 's3://walkb' names no object"),
        ({"source": {"S3Uri": "s3://walkb/"}}, "s3://walkb/KEY"),
        ({"output": {"S3OutputLocation": "s3:///out"}}, "OutputConfig.S3OutputLocation: 's3:///"),
        ({"output": {"CompilerOptions": "--target 'inf2"}}, "No closing quotation"),
        ({"output": {"CompilerOptions": "--lnc ²"}}, "takes a number, not '²'"),
        ({"output": {"CompilerOptions": '{"tp_degree": "8"}'}}, "tp_degree must be of type int"),
        ({"output": {"CompilerOptions": '{"tp_degree": 3}'}}, "Choose one of: 1, 2, 4, 8, 24"),
        ({"output": {"CompilerOptions": "--lnc 2"}}, "no logical NeuronCore configuration 2"),
    ],
)
def test_what_can_never_be_compiled_is_refused_at_once(
    context: Context, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationException) as refused:
        CompilationJobs(context).create(request(**changes))
    assert said in f"{refused.value.message} {refused.value.hint}"


def test_a_compilation_job_says_what_it_was_not_given(context: Context) -> None:
    asked = request()
    del asked["InputConfig"]
    with pytest.raises(ValidationException, match="A compilation job needs an InputConfig"):
        CompilationJobs(context).create(asked)
    package = {**asked, "ModelPackageVersionArn": "arn:aws:sagemaker:us-east-1:0:model-package/m"}
    with pytest.raises(ValidationException, match="ModelPackageVersionArn cannot be compiled"):
        CompilationJobs(context).create(package)


def test_a_name_is_taken_once_and_a_living_job_is_not_deleted(context: Context) -> None:
    jobs = CompilationJobs(context)
    jobs.create(request())
    with pytest.raises(ResourceInUse, match="already exists"):
        jobs.create(request())
    with pytest.raises(ResourceInUse, match="STARTING"):
        jobs.delete({"CompilationJobName": "c"})
