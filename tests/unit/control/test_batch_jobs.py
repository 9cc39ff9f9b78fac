"""Processing and transform jobs over real rows, with runners that are values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_runners import FakeRunners

from ridgeline_service.control.jobs.work import work_folder
from ridgeline_service.errors import ResourceLimitExceeded, ValidationException
from ridgeline_service.settings import Settings
from ridgeline_service.training.causes import Cause
from ridgeline_service.training.order import read_order, write_order
from ridgeline_service.training.report import Report, Transition
from ridgeline_service.training.transform.rows import Filters

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-cpu-py312"


@pytest.fixture
def world(make_world: Any, runners: FakeRunners) -> Any:
    return make_world(runners=runners)


def process(world: Any, name: str, **changes: Any) -> None:
    world.plane.processing_jobs.create(
        {
            "ProcessingJobName": name,
            "RoleArn": world.settings.role_arn,
            "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["python3", "x.py"]},
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceType": "ml.m5.large",
                    "InstanceCount": 1,
                    "VolumeSizeInGB": 1,
                }
            },
            **changes,
        }
    )


def transform(world: Any, name: str, *, count: int = 1, **changes: Any) -> None:
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in"}
    world.plane.transform_jobs.create(
        {
            "TransformJobName": name,
            "ModelName": "m",
            "TransformInput": {
                "DataSource": {"S3DataSource": source},
                "ContentType": "text/csv",
                "SplitType": "Line",
            },
            "TransformOutput": {"S3OutputPath": "s3://b/out/"},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": count},
            **changes,
        }
    )


def ticks(world: Any, count: int = 4) -> None:
    for _ in range(count):
        world.tick(0.6)


def processing(world: Any, name: str) -> dict[str, Any]:
    return world.plane.processing_jobs.describe({"ProcessingJobName": name})


def transformed(world: Any, name: str) -> dict[str, Any]:
    return world.plane.transform_jobs.describe({"TransformJobName": name})


def test_kinds_have_names_of_their_own_and_one_queue(make_world: Any, runners: FakeRunners) -> None:
    world = make_world(runners=runners, settings=Settings(max_instances=1))
    world.model("m")
    process(world, "j")
    world.now += 1
    transform(world, "j")
    ticks(world)
    [runner] = runners.running.values()
    assert runner.spec.order.processing is not None
    assert runner.spec.log_group == "/aws/sagemaker/ProcessingJobs"
    runners.end("j")
    ticks(world)
    assert processing(world, "j")["ProcessingJobStatus"] == "Completed"
    [runner] = runners.running.values()
    assert runner.spec.order.transform is not None
    assert runner.spec.log_group == "/aws/sagemaker/TransformJobs"
    listed = world.plane.processing_jobs.list({})["ProcessingJobSummaries"]
    assert [item["ProcessingJobStatus"] for item in listed] == ["Completed"]
    assert len(world.plane.transform_jobs.list({})["TransformJobSummaries"]) == 1


def test_lists_have_the_order_of_their_kind(world: Any) -> None:
    world.model("m")
    for name in ("a", "b"):
        process(world, name)
        transform(world, name)
        world.now += 1
    processing_jobs = world.plane.processing_jobs.list({})["ProcessingJobSummaries"]
    assert [item["ProcessingJobName"] for item in processing_jobs] == ["a", "b"]
    transform_jobs = world.plane.transform_jobs.list({})["TransformJobSummaries"]
    assert [item["TransformJobName"] for item in transform_jobs] == ["b", "a"]


def test_what_a_processing_script_said_is_shown(world: Any, runners: FakeRunners) -> None:
    process(world, "j")
    ticks(world)
    runners.one("j").report = Report(
        transitions=(Transition("Processing", 9, "p"),),
        training_started_at=9,
        exit_message="no date",
    )
    runners.end(
        "j", outcome="failed", cause=Cause.SCRIPT_FAILED, message="AlgorithmError: ExitCode 1"
    )
    ticks(world)
    found = processing(world, "j")
    assert (found["ProcessingJobStatus"], found["ExitMessage"]) == ("Failed", "no date")
    assert found["FailureReason"] == "AlgorithmError: ExitCode 1"
    assert found["ProcessingInputs"] == []


def places(mode: str) -> dict[str, Any]:
    target = {"S3Uri": "s3://b/o", "LocalPath": "/opt/ml/processing/out", "S3UploadMode": mode}
    return {"Outputs": [{"OutputName": "o", "S3Output": target}]}


@pytest.mark.parametrize(
    ("mode", "stages", "again"),
    [
        ("EndOfJob", ("Processing",), True),
        ("EndOfJob", ("Processing", "Uploading"), False),
        ("Continuous", ("Processing",), False),
    ],
)
def test_a_processing_job_begins_again_while_nobody_saw_anything_of_it(
    world: Any, runners: FakeRunners, mode: str, stages: tuple[str, ...], again: bool
) -> None:
    process(world, "j", ProcessingOutputConfig=places(mode))
    ticks(world)
    moments = tuple(Transition(stage, 9, "p") for stage in stages)
    runners.one("j").report = Report(transitions=moments, training_started_at=9)
    runners.one("j").alive = False
    ticks(world)
    if again:
        assert runners.one("j").spec.order.attempt == 1
        for _ in range(3):
            runners.one("j").alive = False
            ticks(world)
    found = processing(world, "j")
    assert found["ProcessingJobStatus"] == "Failed"
    assert "The job runner" in found["FailureReason"]
    assert len(runners.started) == (4 if again else 1)


def test_the_order_of_a_transform_job(world: Any, runners: FakeRunners, tmp_path: Path) -> None:
    world.model("m", OWN="1")
    transform(
        world,
        "j",
        count=2,
        BatchStrategy="SingleRecord",
        MaxPayloadInMB=0,
        Environment={"MINE": "2"},
        ModelClientConfig={"InvocationsTimeoutInSeconds": 7, "InvocationsMaxRetries": 0},
        DataProcessing={"InputFilter": "$[1:]", "JoinSource": "Input"},
    )
    # What the model is when the job is created counts.
    world.plane.models.delete({"ModelName": "m"})
    ticks(world)
    order = runners.one("j", "algo-2").spec.order
    asked = order.transform
    assert asked is not None
    assert (asked.single, asked.max_bytes, asked.concurrent) == (True, None, 1)
    assert (asked.timeout_s, asked.retries, asked.output_uri) == (7.0, 0, "s3://b/out")
    assert asked.filters == Filters("$[1:]", "$", join=True)
    environment = asked.server.environment
    assert (environment["OWN"], environment["MINE"]) == ("1", "2")
    assert environment["SAGEMAKER_BATCH_STRATEGY"] == "SINGLE_RECORD"
    assert environment["SAGEMAKER_MODEL_SERVER_TIMEOUT"] == "7"
    write_order(tmp_path, order)
    assert read_order(tmp_path) == order


def test_a_transform_job_goes_on_with_its_folder_until_it_ends(
    world: Any, runners: FakeRunners
) -> None:
    world.model("m")
    transform(world, "j")
    ticks(world)
    order = runners.one("j").spec.order
    assert order.transform is not None
    folder = Path(order.transform.work)
    folder.mkdir(parents=True)
    stranger = work_folder(world.data_dir, "long-ago")
    stranger.mkdir()
    runners.one("j").alive = False
    world.kill_plane()
    ticks(world)
    assert runners.one("j").spec.order.attempt == 1
    again = runners.one("j").spec.order.transform
    assert again is not None
    assert again.work == str(folder)
    assert folder.is_dir()
    assert not stranger.exists()
    runners.end("j")
    ticks(world)
    assert transformed(world, "j")["TransformJobStatus"] == "Completed"
    assert not folder.exists()


def test_a_model_that_cannot_be_staged_fails_the_job(world: Any, runners: FakeRunners) -> None:
    world.model("m", STAGING="ModelDataInvalid", WORDS="model.tar.gz is no archive")
    transform(world, "j")
    ticks(world)
    found = transformed(world, "j")
    assert found["TransformJobStatus"] == "Failed"
    assert found["FailureReason"].startswith("ClientError: The model data cannot be used.")
    assert "model.tar.gz is no archive" in found["FailureReason"]
    assert runners.started == []


def test_a_stopped_transform_job_is_not_started_again(world: Any, runners: FakeRunners) -> None:
    world.model("m")
    transform(world, "j")
    ticks(world)
    world.plane.transform_jobs.stop({"TransformJobName": "j"})
    ticks(world)
    assert set(runners.one("j").asked) == {Cause.STOP_REQUESTED}
    runners.one("j").alive = False
    ticks(world)
    assert transformed(world, "j")["TransformJobStatus"] == "Stopped"
    assert len(runners.started) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MaxPayloadInMB": 51, "MaxConcurrentTransforms": 2}, "must not exceed"),
        ({"DataProcessing": {"OutputFilter": "x"}}, "begins with"),
        ({"DataCaptureConfig": {"DestinationS3Uri": "s3://b/c"}}, "not captured"),
        ({"TransformOutput": {"S3OutputPath": "https://b/out"}}, "no S3 URI"),
        (
            {
                "TransformOutput": {"S3OutputPath": "s3://b/o", "Accept": "application/json"},
                "DataProcessing": {"JoinSource": "Input"},
            },
            "unlike formats",
        ),
        ({"Environment": {"RIDGELINE_MEMORY_MB": "much"}}, "a number of MiB"),
    ],
)
def test_a_transform_job_that_cannot_run_is_refused(
    world: Any, changes: dict[str, Any], words: str
) -> None:
    world.model("m")
    with pytest.raises(ValidationException, match=words):
        transform(world, "j", **changes)


def test_more_instances_than_there_may_be_are_refused(make_world: Any, runners: Any) -> None:
    world = make_world(runners=runners, settings=Settings(max_instances=2))
    world.model("m")
    with pytest.raises(ResourceLimitExceeded, match="needs 3 running instances"):
        transform(world, "j", count=3)


SOURCE = {"S3Uri": "s3://b/k", "LocalPath": "/opt/ml/processing/in", "S3DataType": "S3Prefix"}


def given(**changes: Any) -> dict[str, Any]:
    return {"InputName": "x", "S3Input": {**SOURCE, **changes}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ProcessingInputs": [given(S3InputMode="Pipe")]}, "Pipe mode"),
        ({"ProcessingInputs": [given(LocalPath="/opt/ml/processing-not")]}, "a folder below"),
        ({"ProcessingInputs": [given(LocalPath="/opt/ml/processing/..")]}, "a folder below"),
        ({"ProcessingInputs": [given(), given()]}, "given twice"),
        ({"ProcessingInputs": [{"InputName": "x"}]}, "no S3Input"),
        ({"AppSpecification": {"ImageUri": IMAGE}}, "no ContainerEntrypoint"),
        (
            {"ProcessingResources": {"ClusterConfig": {"VolumeSizeInGB": 1}}},
            "InstancePreferences",
        ),
    ],
)
def test_a_processing_job_that_cannot_run_is_refused(
    world: Any, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationException, match=words):
        process(world, "j", **changes)


def test_paths_are_plain_in_the_order(world: Any, runners: FakeRunners) -> None:
    output = {"S3Uri": "s3://b/o", "LocalPath": "/opt/ml/processing//out/"}
    process(
        world,
        "j",
        ProcessingInputs=[given(LocalPath="/opt/ml/processing/in/")],
        ProcessingOutputConfig={
            "Outputs": [{"OutputName": "o", "S3Output": {**output, "S3UploadMode": "Continuous"}}]
        },
    )
    ticks(world)
    order = runners.one("j").spec.order
    assert [channel.inside for channel in order.channels] == ["/opt/ml/processing/in"]
    assert order.processing is not None
    [only] = order.processing.outputs
    assert (only.path, only.continuous) == ("/opt/ml/processing/out", True)
    assert order.processing.config["ProcessingJobName"] == "j"
    assert replace(order, attempt=1).words == "processing job"


def test_a_job_without_stages_says_what_it_waits_for(make_world: Any, runners: FakeRunners) -> None:
    world = make_world(runners=runners, settings=Settings(max_instances=1))
    world.model("m")
    process(world, "a")
    world.now += 1
    process(world, "b")
    transform(world, "b")
    ticks(world)
    assert "FailureReason" not in processing(world, "a")
    listed = world.plane.processing_jobs.list({"NameContains": "b"})["ProcessingJobSummaries"]
    for shown in (processing(world, "b"), transformed(world, "b"), *listed):
        assert "Waiting for a running instance to end: 1 of at most 1" in shown["FailureReason"]
    runners.end("a")
    ticks(world)
    assert "FailureReason" not in processing(world, "b")
