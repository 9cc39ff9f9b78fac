"""What a tuner sends, what a wait for it shows, and what its command line means."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ridgeline import (
    CategoricalParameter,
    ContinuousParameter,
    Estimator,
    HyperparameterTuner,
    IntegerParameter,
    PyTorch,
    TuningFailed,
    TuningJob,
    WarmStartConfig,
    WarmStartTypes,
)
from ridgeline._progress import PlainProgress
from ridgeline._progress_rich import RichProgress
from ridgeline._trials import search_of
from ridgeline.cli.tune import parse_range
from ridgeline.errors import InvalidInput, NotFound, NotReady
from ridgeline.session import Session

ARN = "arn:aws:sagemaker:us-east-1:123456789012:hyper-parameter-tuning-job/t"
CONFIG = {
    "Strategy": "Bayesian",
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 2},
    "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
    "ParameterRanges": {
        "ContinuousParameterRanges": [{"Name": "lr", "MinValue": "0", "MaxValue": "1"}],
        "CategoricalParameterRanges": [{"Name": "kind", "Values": ['"a"']}],
    },
}


def described(status: str, **more: Any) -> dict[str, Any]:
    counters = {"Completed": 1, "InProgress": 0, "NonRetryableError": 0, "Stopped": 0}
    return {
        "HyperParameterTuningJobName": "t",
        "HyperParameterTuningJobArn": ARN,
        "HyperParameterTuningJobConfig": CONFIG,
        "HyperParameterTuningJobStatus": status,
        "CreationTime": 1.7e9,
        "TrainingJobStatusCounters": counters,
        "ObjectiveStatusCounters": {"Succeeded": 1, "Pending": 0, "Failed": 0},
        **more,
    }


def summary(name: str, value: float | None, status: str = "Completed") -> dict[str, Any]:
    found: dict[str, Any] = {
        "TrainingJobName": name,
        "TrainingJobArn": ARN,
        "CreationTime": 1.7e9,
        "TrainingJobStatus": status,
        "TunedHyperParameters": {"lr": "0.123456", "kind": '"a"'},
    }
    if value is not None:
        metric = {"MetricName": "loss", "Value": value}
        found["FinalHyperParameterTuningJobObjectiveMetric"] = metric
        found["TrainingStartTime"], found["TrainingEndTime"] = 1.7e9, 1.7e9 + 2
    return found


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print(1)")
    return tmp_path / "train.py"


@pytest.fixture
def accepted(fake: Any, sdk_tools: Any) -> Any:
    answer = {"HyperParameterTuningJobArn": ARN}
    fake.on("CreateHyperParameterTuningJob", sdk_tools.Reply(answer))
    return fake


def test_fit_makes_a_definition_of_its_estimator(
    session: Session, accepted: Any, script: Path
) -> None:
    estimator = PyTorch(
        str(script), hyperparameters={"epochs": 3, "lr": 0.1}, sagemaker_session=session
    )
    tuner = HyperparameterTuner(
        estimator,
        "loss",
        {
            "lr": ContinuousParameter(1e-4, 0.1, "Logarithmic"),
            "depth": IntegerParameter(1, 8),
            "kind": CategoricalParameter(["a", "b"]),
        },
        metric_definitions=[{"Name": "loss", "Regex": "loss=(.*)"}],
        objective_type="Minimize",
        max_jobs=6,
        max_parallel_jobs=2,
        warm_start_config=WarmStartConfig(WarmStartTypes.TRANSFER_LEARNING, ["before"]),
        random_seed=0,
    )
    tuner.fit({"train": "s3://b/t"}, job_name="t", wait=False)
    [request] = accepted.requests("CreateHyperParameterTuningJob")
    config, definition = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
    assert config["ParameterRanges"] == {
        "ContinuousParameterRanges": [
            {"Name": "lr", "MinValue": "0.0001", "MaxValue": "0.1", "ScalingType": "Logarithmic"}
        ],
        "IntegerParameterRanges": [
            {"Name": "depth", "MinValue": "1", "MaxValue": "8", "ScalingType": "Auto"}
        ],
        "CategoricalParameterRanges": [{"Name": "kind", "Values": ['"a"', '"b"']}],
    }
    assert config["RandomSeed"] == 0
    assert definition["StaticHyperParameters"]["epochs"] == "3"
    assert "lr" not in definition["StaticHyperParameters"]
    assert definition["AlgorithmSpecification"]["MetricDefinitions"][0]["Name"] == "loss"
    assert definition["HyperParameterTuningResourceConfig"]["InstanceCount"] == 1
    assert request["WarmStartConfig"] == {
        "WarmStartType": "TransferLearning",
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "before"}],
    }


def test_a_name_of_its_own_is_short_enough(session: Session, accepted: Any, script: Path) -> None:
    tuner = HyperparameterTuner(
        PyTorch(str(script), sagemaker_session=session),
        "loss",
        {"lr": ContinuousParameter(0, 1)},
        base_tuning_job_name="a-name-that-is-far-too-long-for-a-tuning-job",
    )
    tuner.fit(wait=False)
    [request] = accepted.requests("CreateHyperParameterTuningJob")
    assert len(request["HyperParameterTuningJobName"]) <= 32


def test_a_wait_shows_each_trial_once(fake: Any, session: Session, sdk_tools: Any) -> None:
    said = io.StringIO()
    session.progress = PlainProgress(said)
    looks = [described("InProgress"), described("Completed", BestTrainingJob=summary("t-2", 0.1))]
    fake.on("DescribeHyperParameterTuningJob", *[sdk_tools.Reply(look) for look in looks])
    pages = [[summary("t-1", 0.5)], [summary("t-1", 0.5), summary("t-2", 0.1)]]
    fake.on(
        "ListTrainingJobsForHyperParameterTuningJob",
        *[sdk_tools.Reply({"TrainingJobSummaries": page}) for page in pages],
    )
    TuningJob("t", session).wait()
    lines = said.getvalue().splitlines()
    assert len(lines) == 3
    assert "t-1: loss=0.5  lr=0.1235 kind=a" in lines[1]
    assert lines[2].endswith("(best so far)")


def test_a_failed_search_raises_with_its_reason(
    fake: Any, session: Session, sdk_tools: Any
) -> None:
    failed = described("Failed", FailureReason="All training jobs failed.")
    fake.on("DescribeHyperParameterTuningJob", sdk_tools.Reply(failed))
    empty = sdk_tools.Reply({"TrainingJobSummaries": []})
    fake.on("ListTrainingJobsForHyperParameterTuningJob", empty)
    with pytest.raises(TuningFailed, match="All training jobs failed"):
        TuningJob("t", session).wait()
    with pytest.raises(NotReady, match="no best training job"):
        TuningJob("t", session).best()


def test_attach_brings_back_the_tuner(fake: Any, session: Session, sdk_tools: Any) -> None:
    definition = {
        "AlgorithmSpecification": {"TrainingImage": "i:1", "TrainingInputMode": "File"},
        "RoleArn": "arn:aws:iam::123456789012:role/r",
        "OutputDataConfig": {"S3OutputPath": "s3://b/o"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 5},
        "HyperParameterTuningResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2},
        "StaticHyperParameters": {"epochs": "3", "_tuning_objective_metric": "loss"},
    }
    best = {"BestTrainingJob": summary("t-1", 0.5)}
    look = described("Completed", TrainingJobDefinition=definition, **best)
    fake.on("DescribeHyperParameterTuningJob", sdk_tools.Reply(look))
    tuner = HyperparameterTuner.attach("t", session)
    assert isinstance(tuner.estimator, Estimator)
    assert tuner.estimator.hyperparameters() == {"epochs": "3"}
    assert tuner.estimator.instance_count == 2
    assert (tuner.objective_type, tuner.max_jobs) == ("Minimize", 3)
    assert set(tuner.hyperparameter_ranges) == {"lr", "kind"}
    assert tuner.best_training_job() == "t-1"
    warm = tuner.identical_dataset_and_algorithm_tuner({"other"})
    assert warm.warm_start_config is not None
    assert list(warm.warm_start_config.parents) == ["other", "t"]
    with pytest.raises(NotFound, match="no tuning job"):
        warm.best_training_job()


def test_a_table_of_trials_marks_the_best() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    at = datetime.fromtimestamp(1.7e9, UTC)
    trials = [summary("t-001-a", 0.5), summary("t-002-b", None, "InProgress")]
    trials[0].update(TrainingStartTime=at, TrainingEndTime=at)
    with RichProgress(console).trials("Tuning job t") as display:
        look = described("InProgress", BestTrainingJob=trials[0])
        display.update(search_of(look, trials))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "0.5 ★" in shown
    assert "002-b" in shown
    assert "1 of 3 trials have ended" in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4:1e-1:log", "ContinuousParameter(0.0001, 0.1, 'Logarithmic')"),
        ("1:8", "IntegerParameter(1, 8, 'Auto')"),
        ("0:0.5:linear", "ContinuousParameter(0.0, 0.5, 'Linear')"),
        ("a,b", "CategoricalParameter(['a', 'b'])"),
        ("16,32", "CategoricalParameter([16, 32])"),
    ],
)
def test_ranges_of_the_command_line(text: str, expected: str) -> None:
    assert repr(parse_range("x", text)) == expected


@pytest.mark.parametrize(
    ("text", "words"), [("1:2:logg", "no scale"), ("a:b", "is no range"), ("2:1", "nothing in it")]
)
def test_ranges_that_are_none(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_range("x", text)
