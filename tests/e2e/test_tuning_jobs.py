"""Unmodified boto3 against a running service: tuning jobs whose trials are real training jobs."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator

import psutil
import pytest
from botocore.exceptions import ClientError
from ridgeline_jobs import Jobs, running_jobs
from ridgeline_testing import until
from ridgeline_tuning import create, describe, trials, wait

from ridgeline_service.processes import find_by_command

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with running_jobs(tmp_path_factory.mktemp("tuning") / "data") as running:
        yield running


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
