"""What an estimator sends, what a wait shows, and what a failure raises."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ridgeline import Estimator, PyTorch, SKLearn, TrainingInput, TrainingJob
from ridgeline._progress import PlainProgress
from ridgeline.errors import InvalidInput, NotFound, NotReady, TrainingFailed
from ridgeline.estimator import serving_image
from ridgeline.session import Session

ARN = "arn:aws:sagemaker:us-east-1:123456789012:training-job/j"


def described(status: str, *moments: str, **more: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": "j",
        "TrainingJobArn": ARN,
        "TrainingJobStatus": status,
        "SecondaryStatus": moments[-1] if moments else status,
        "SecondaryStatusTransitions": [
            {"Status": moment, "StartTime": 1.7e9, "StatusMessage": f"now {moment}"}
            for moment in moments
        ],
        "CreationTime": 1.7e9,
        "ModelArtifacts": {"S3ModelArtifacts": "s3://b/out/j/output/model.tar.gz"},
        **more,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print(1)")
    (tmp_path / "code" / "helper.py").write_text("VALUE = 1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("1")
    return tmp_path


@pytest.fixture
def accepted(fake: Any, sdk_tools: Any) -> Any:
    fake.on("CreateTrainingJob", sdk_tools.Reply({"TrainingJobArn": ARN}))
    return fake


def test_fit_uploads_what_is_local_and_names_it(
    session: Session, accepted: Any, folder: Path
) -> None:
    estimator = PyTorch(
        "train.py",
        source_dir=folder / "code",
        hyperparameters={"epochs": 3, "name": "a b"},
        metric_definitions=[{"Name": "loss", "Regex": "loss=(.*)"}],
        distribution={"torch_distributed": {"enabled": True}},
        sagemaker_session=session,
    )
    estimator.fit(
        {"train": str(folder / "data"), "test": TrainingInput("s3://b/t", "ShardedByS3Key")},
        wait=False,
        job_name="j",
    )
    [request] = accepted.requests("CreateTrainingJob")
    values = request["HyperParameters"]
    assert (values["epochs"], values["name"]) == ("3", '"a b"')
    assert values["sagemaker_program"] == '"train.py"'
    assert values["sagemaker_torch_distributed_enabled"] == "true"
    train, test = request["InputDataConfig"]
    uri = train["DataSource"]["S3DataSource"]["S3Uri"]
    assert accepted.objects[uri.removeprefix("s3://") + "/a.csv"][0] == b"1"
    assert test["DataSource"]["S3DataSource"]["S3DataDistributionType"] == "ShardedByS3Key"
    assert request["AlgorithmSpecification"]["TrainingImage"].endswith(
        "/pytorch-training:2.8.0-cpu-py312"
    )
    assert request["AlgorithmSpecification"]["MetricDefinitions"] == [
        {"Name": "loss", "Regex": "loss=(.*)"}
    ]
    code = json.loads(values["sagemaker_submit_directory"]).removeprefix("s3://")
    with tarfile.open(fileobj=io.BytesIO(accepted.objects[code][0])) as archive:
        assert sorted(archive.getnames()) == ["helper.py", "train.py"]


def test_an_image_without_a_script_gets_plain_hyperparameters(
    session: Session, accepted: Any
) -> None:
    estimator = Estimator(
        "r/pytorch-training:1",
        hyperparameters={"epochs": 3, "name": "a"},
        container_entry_point=["python", "x.py"],
        max_retry_attempts=2,
        sagemaker_session=session,
    )
    estimator.fit("s3://b/data", wait=False)
    [request] = accepted.requests("CreateTrainingJob")
    assert request["HyperParameters"] == {"epochs": "3", "name": "a"}
    assert request["AlgorithmSpecification"]["ContainerEntrypoint"] == ["python", "x.py"]
    assert request["InputDataConfig"][0]["ChannelName"] == "training"
    assert request["RetryStrategy"] == {"MaximumRetryAttempts": 2}
    assert "EnableNetworkIsolation" not in request


def test_wrong_inputs_are_found_before_anything_is_created(
    session: Session, accepted: Any, folder: Path
) -> None:
    estimator = SKLearn(str(folder / "code" / "train.py"), sagemaker_session=session)
    with pytest.raises(NotFound, match="Channel 'train'"):
        estimator.fit({"train": str(folder / "nothing")}, wait=False)
    with pytest.raises(InvalidInput, match="neither an S3 URI"):
        estimator.fit({"train": "http://b/x"}, wait=False)
    with pytest.raises(InvalidInput, match="training job"):
        estimator.fit(wait=False, job_name="not a name")
    with pytest.raises(InvalidInput, match="'mpi'"):
        PyTorch(
            str(folder / "code" / "train.py"),
            distribution={"mpi": {"enabled": True}},
            sagemaker_session=session,
        ).fit(wait=False)
    assert accepted.requests("CreateTrainingJob") == []


def test_a_wait_shows_each_stage_and_each_line_once(
    session: Session, accepted: Any, sdk_tools: Any, folder: Path
) -> None:
    shown = io.StringIO()
    session.progress = PlainProgress(shown)
    lines: list[str] = []
    views = iter(
        [
            (described("InProgress", "Starting"), []),
            (described("InProgress", "Starting", "Training"), ["one"]),
            (described("InProgress", "Starting", "Training"), ["one", "two"]),
            (described("Completed", "Starting", "Training", "Completed"), ["one", "two", "last"]),
        ]
    )

    def describe(call: Any) -> Any:
        view, lines[:] = next(views)
        return sdk_tools.Reply(view)

    def events(call: Any) -> Any:
        start = int(call.json.get("nextToken", "f/0").removeprefix("f/"))
        found = [{"timestamp": 1, "message": text} for text in lines[start:]]
        return sdk_tools.Reply({"events": found, "nextForwardToken": f"f/{len(lines)}"})

    accepted.rules["DescribeTrainingJob"] = describe
    accepted.rules["DescribeLogStreams"] = sdk_tools.Reply(
        {"logStreams": [{"logStreamName": "j/algo-1-1"}]}
    )
    accepted.rules["GetLogEvents"] = events
    estimator = PyTorch(str(folder / "code" / "train.py"), sagemaker_session=session)
    estimator.fit(job_name="j")
    texts = [line.removeprefix("2023-11-14 22:13:20 ") for line in shown.getvalue().splitlines()]
    assert texts == [
        "Training job j",
        "Starting - now Starting",
        "Training - now Training",
        "one",
        "two",
        "last",
        "Completed - now Completed",
    ]


def test_a_failed_job_raises_its_reason_and_last_lines(
    session: Session, accepted: Any, sdk_tools: Any
) -> None:
    reason = "AlgorithmError: ExitCode 1\nLast log lines:\nboom"
    accepted.on(
        "DescribeTrainingJob",
        sdk_tools.Reply(described("Failed", "Failed", FailureReason=reason)),
    )
    accepted.rules["DescribeLogStreams"] = sdk_tools.aws_error("ResourceNotFoundException", "no")
    with pytest.raises(TrainingFailed) as caught:
        TrainingJob("j", session).wait()
    assert "AlgorithmError: ExitCode 1" in str(caught.value)
    assert caught.value.log_tail == ("boom",)
    assert "ridgeline logs j" in str(caught.value)


def test_a_model_is_there_when_the_job_has_uploaded_it(
    session: Session, accepted: Any, sdk_tools: Any
) -> None:
    accepted.on(
        "DescribeTrainingJob",
        sdk_tools.Reply(
            described(
                "Completed",
                AlgorithmSpecification={"TrainingImage": "r/pytorch-training:1"},
                OutputDataConfig={"S3OutputPath": "s3://b/out"},
                ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2},
                HyperParameters={"epochs": "3", "sagemaker_program": '"x"'},
            )
        ),
    )
    estimator = Estimator.attach("j", session)
    assert estimator.model_data == "s3://b/out/j/output/model.tar.gz"
    assert (estimator.instance_count, estimator.hyperparameters()) == (2, {"epochs": "3"})
    assert estimator.create_model().image_uri == "r/pytorch-inference:1"
    accepted.on(
        "DescribeTrainingJob",
        sdk_tools.Reply({**described("InProgress"), "ModelArtifacts": {}}),
    )
    with pytest.raises(NotReady, match="InProgress"):
        _ = estimator.model_data


@pytest.mark.parametrize(
    ("training", "serving"),
    [
        ("1.dkr/huggingface-pytorch-training:t", "1.dkr/huggingface-pytorch-inference:t"),
        ("1.dkr/sagemaker-scikit-learn:1", "1.dkr/sagemaker-scikit-learn:1"),
    ],
)
def test_the_image_that_serves(training: str, serving: str) -> None:
    assert serving_image(training) == serving
