"""Tuning jobs for tests, in boto3's words, over trials that are real training jobs."""

from __future__ import annotations

import json
from typing import Any

from ridgeline_jobs import BUCKET, ENDED, IMAGE, Jobs
from ridgeline_testing import until

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
    until(lambda: describe(jobs, name)["HyperParameterTuningJobStatus"] in ENDED, timeout_s)
    return describe(jobs, name)


def trials(jobs: Jobs, name: str, **query: Any) -> list[dict[str, Any]]:
    return jobs.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name, MaxResults=100, **query
    )["TrainingJobSummaries"]
