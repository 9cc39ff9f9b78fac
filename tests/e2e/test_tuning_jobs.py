"""Unmodified boto3 against a running service: tuning jobs whose trials are real training jobs."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError
from ridgeline_jobs import BUCKET, IMAGE, Jobs, running_jobs
from ridgeline_testing import until

from ridgeline_service.processes import find_by_command

pytestmark = pytest.mark.e2e

SCRIPT = """
import argparse, json, os, time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--width", type=float)
parser.add_argument("--kind")
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--pause", type=float, default=0)
args = parser.parse_args()
loss = (args.width - 0.3) ** 2 + (args.kind == "b")
for epoch in range(args.epochs):
    print(f"loss={loss + 1 / (epoch + 1):.6f};", flush=True)
    time.sleep(args.pause)
Path(os.environ["SM_MODEL_DIR"], "model.json").write_text(json.dumps(vars(args)))
"""
METRICS = [{"Name": "loss", "Regex": "loss=([0-9.]+);"}]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with running_jobs(tmp_path_factory.mktemp("tuning") / "data") as running:
        yield running


def create(jobs: Jobs, name: str, script: str = SCRIPT, **changes: Any) -> None:
    static = changes.pop("static", {})
    config = {
        "Strategy": "Random",
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ParameterRanges": {
            "ContinuousParameterRanges": [{"Name": "width", "MinValue": "0", "MaxValue": "1"}],
            "CategoricalParameterRanges": [{"Name": "kind", "Values": ['"a"', '"b"']}],
        },
        "RandomSeed": 1,
        **changes.pop("config", {}),
    }
    definition = {
        "StaticHyperParameters": {
            "sagemaker_program": json.dumps("train.py"),
            "sagemaker_submit_directory": json.dumps(jobs.code(name, {"train.py": script})),
            **static,
        },
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": METRICS,
        },
        "RoleArn": jobs.service.role,
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "HyperParameterTuningResourceConfig": {
            "InstanceType": "ml.m5.large",
            "InstanceCount": 1,
            "VolumeSizeInGB": 5,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }
    jobs.sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name,
        HyperParameterTuningJobConfig=config,
        TrainingJobDefinition=definition,
        **changes,
    )


def describe(jobs: Jobs, name: str) -> dict[str, Any]:
    return jobs.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)


def wait(jobs: Jobs, name: str, timeout_s: float = 90) -> dict[str, Any]:
    ended = ("Completed", "Failed", "Stopped")
    until(lambda: describe(jobs, name)["HyperParameterTuningJobStatus"] in ended, timeout_s)
    return describe(jobs, name)


def trials(jobs: Jobs, name: str, **query: Any) -> list[dict[str, Any]]:
    return jobs.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name, MaxResults=100, **query
    )["TrainingJobSummaries"]


def test_a_search_from_ranges_to_the_best_model(jobs: Jobs) -> None:
    create(jobs, "search", config={"Strategy": "Bayesian"}, Tags=[{"Key": "k", "Value": "v"}])
    found = wait(jobs, "search")
    assert found["HyperParameterTuningJobStatus"] == "Completed", found.get("FailureReason")
    assert found["TrainingJobStatusCounters"]["Completed"] == 4
    best = found["BestTrainingJob"]
    ranked = trials(jobs, "search", SortBy="FinalObjectiveMetricValue", SortOrder="Ascending")
    assert ranked[0]["TrainingJobName"] == best["TrainingJobName"]
    values = [each["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for each in ranked]
    assert values == sorted(values)
    job = jobs.describe(best["TrainingJobName"])
    assert job["TuningJobArn"] == found["HyperParameterTuningJobArn"]
    model = json.loads(jobs.artifact(job["ModelArtifacts"]["S3ModelArtifacts"])["model.json"])
    tried = best["TunedHyperParameters"]
    assert (model["width"], model["kind"]) == (float(tried["width"]), json.loads(tried["kind"]))
    assert best["TrainingStartTime"] <= best["TrainingEndTime"]
    arn = found["HyperParameterTuningJobArn"]
    assert jobs.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "k", "Value": "v"}]
    with pytest.raises(ClientError, match="ResourceInUse"):
        create(jobs, "search")
    with pytest.raises(ClientError) as caught:
        describe(jobs, "nothing")
    assert caught.value.response["Error"]["Code"] == "ResourceNotFound"


def test_a_stop_stops_the_trials(jobs: Jobs) -> None:
    create(jobs, "stopped", static={"epochs": "1000", "pause": "0.2"})
    until(lambda: len(trials(jobs, "stopped")) == 2, 20)
    names = [each["TrainingJobName"] for each in trials(jobs, "stopped")]
    until(lambda: all(jobs.describe(n)["SecondaryStatus"] == "Training" for n in names), 30)
    jobs.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped")
    found = wait(jobs, "stopped")
    assert found["HyperParameterTuningJobStatus"] == "Stopped"
    assert {jobs.describe(name)["TrainingJobStatus"] for name in names} == {"Stopped"}
    jobs.sagemaker.delete_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped")
    listed = jobs.sagemaker.list_hyper_parameter_tuning_jobs(NameContains="stopped")
    assert listed["HyperParameterTuningJobSummaries"] == []


def test_hyperband_ends_what_is_behind(jobs: Jobs) -> None:
    config = {
        "Strategy": "Hyperband",
        "StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 9}},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 3},
    }
    create(jobs, "band", config=config, static={"epochs": "40", "pause": "0.3"})
    found = wait(jobs, "band", 120)
    assert found["HyperParameterTuningJobStatus"] == "Completed", found.get("FailureReason")
    assert found["TrainingJobStatusCounters"]["Stopped"] == 6
    assert found["ObjectiveStatusCounters"]["Succeeded"] == 6
    best = found["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    assert best < 1.4


def test_a_search_whose_trials_fail_says_why(jobs: Jobs) -> None:
    create(jobs, "failing", "raise RuntimeError('no data here')")
    found = wait(jobs, "failing")
    assert found["HyperParameterTuningJobStatus"] == "Failed"
    assert "no data here" in found["FailureReason"]


def test_kills_neither_lose_nor_double_a_trial(jobs: Jobs) -> None:
    chance = random.Random(5)
    limits = {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 3}
    create(jobs, "killed", config={"Strategy": "Bayesian", "ResourceLimits": limits})
    for _ in range(4):
        time.sleep(chance.uniform(0.2, 1.5))
        for plane in find_by_command("ridgeline_service.api"):
            if str(jobs.service.data_dir) in " ".join(psutil.Process(plane.pid).cmdline()):
                psutil.Process(plane.pid).kill()
    found = wait(jobs, "killed", 120)
    assert found["TrainingJobStatusCounters"]["Completed"] == 6, found
    names = [each["TrainingJobName"] for each in trials(jobs, "killed")]
    assert [name[:10] for name in names] == [f"killed-{number:03d}" for number in range(1, 7)]
    listed = jobs.sagemaker.list_training_jobs(NameContains="killed-", MaxResults=100)
    assert len(listed["TrainingJobSummaries"]) == 6
