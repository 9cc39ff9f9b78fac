"""AWS's sagemaker SDK v3, unmodified: HyperparameterTuner over a ModelTrainer, and sagemaker-core's
HyperParameterTuningJob."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from sagemaker.core.parameter import CategoricalParameter, ContinuousParameter, IntegerParameter
from sagemaker.core.resources import HyperParameterTuningJob, TrainingJob
from sagemaker.core.shapes import (
    HyperParameterTuningJobWarmStartConfig,
    ParentHyperParameterTuningJob,
)
from sagemaker.core.utils.exceptions import FailedStatusError
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode
from sagemaker.train.tuner import HyperparameterTuner

IMAGE = (
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/"
    "pytorch-training:2.8.0-cpu-py312-ubuntu22.04-sagemaker"
)
TRAIN = """
import argparse
import os
from pathlib import Path

import helper

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--depth", type=int, required=True)
parser.add_argument("--kind", choices=["plain", "fancy"], required=True)
parser.add_argument("--rows", type=int, required=True)
args = parser.parse_args()
found = (Path(os.environ["SM_CHANNEL_TRAIN"]) / "d.csv").read_text().split()
assert len(found) == args.rows == helper.ROWS
print(f"loss={args.lr + args.depth + (args.kind == 'fancy'):.6f};", flush=True)
Path(os.environ["SM_MODEL_DIR"], "depth.txt").write_text(str(args.depth))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "code").mkdir()
        (folder / "code" / "train.py").write_text(TRAIN)
        (folder / "code" / "helper.py").write_text("ROWS = 3")
        (folder / "d.csv").write_text("1\n2\n3\n")
        warm(folder, searched(tuned(folder, "v3-tuned")))
        stopped(folder)
        failing(folder)


def tuned(
    folder: Path,
    name: str,
    *,
    most: int = 3,
    regex: str = "loss=([0-9.]+);",
    warm_start: HyperParameterTuningJobWarmStartConfig | None = None,
) -> HyperparameterTuner:
    """One that has started."""
    # Without the proxy the SDK asks AWS for its default role.
    role = {"role": os.environ["RIDGELINE_ROLE_ARN"]} if "AWS_ENDPOINT_URL" in os.environ else {}
    trainer = ModelTrainer(
        training_image=IMAGE,
        source_code=SourceCode(source_dir=str(folder / "code"), entry_script="train.py"),
        compute=Compute(instance_type="ml.m5.large", instance_count=1),
        hyperparameters={"rows": 3},
        base_job_name="v3-tune",
        **role,
    )
    session = trainer.sagemaker_session
    data = session.upload_data(str(folder / "d.csv"), key_prefix="v3-tuning/data")
    made = HyperparameterTuner(
        trainer,
        "loss",
        {
            "lr": ContinuousParameter(1e-4, 1e-1, scaling_type="Logarithmic"),
            "depth": IntegerParameter(1, 4),
            "kind": CategoricalParameter(["plain", "fancy"]),
        },
        metric_definitions=[{"Name": "loss", "Regex": regex}],
        objective_type="Minimize",
        max_jobs=most,
        max_parallel_jobs=2,
        random_seed=3,
        warm_start_config=warm_start,
        base_tuning_job_name=name,  # the SDK's own part of it tells minutes apart only
    )
    made.tune(
        inputs=[InputData(channel_name="train", data_source=data.rpartition("/")[0])], wait=False
    )
    return made


def searched(tuner: HyperparameterTuner) -> str:
    tuner.wait()
    name = tuner.latest_tuning_job.hyper_parameter_tuning_job_name
    table = tuner.analytics().dataframe()
    assert set(table["TrainingJobStatus"]) == {"Completed"}, table
    best = table.sort_values("FinalObjectiveValue").iloc[0]
    assert tuner.best_training_job() == best["TrainingJobName"], table
    job = TrainingJob.get(best["TrainingJobName"])
    assert job.training_job_status == "Completed"
    assert float(job.hyper_parameters["depth"].strip('"')) == float(best["depth"])
    found = HyperParameterTuningJob.get(name)
    assert found.objective_status_counters.succeeded == 3
    listed = HyperParameterTuningJob.get_all(name_contains=name)
    assert [each.hyper_parameter_tuning_job_name for each in listed] == [name]
    trials = list(found.get_all_training_jobs(sort_by="FinalObjectiveMetricValue"))
    assert len(trials) == 3
    print("HyperparameterTuner: tuned, analysed, found again")
    return name


def warm(folder: Path, parent: str) -> None:
    """The SDK uploads the script to a new place; data and algorithm are the same all the same."""
    parents = [ParentHyperParameterTuningJob(hyper_parameter_tuning_job_name=parent)]
    config = HyperParameterTuningJobWarmStartConfig(
        parent_hyper_parameter_tuning_jobs=parents, warm_start_type="IdenticalDataAndAlgorithm"
    )
    tuner = tuned(folder, "v3-warm", most=1, warm_start=config)
    tuner.wait()
    found = tuner.describe()
    assert found.hyper_parameter_tuning_job_status == "Completed", found
    assert found.overall_best_training_job is not None, found
    print("HyperparameterTuner: started warm from another")


def stopped(folder: Path) -> None:
    tuner = tuned(folder, "v3-stopped", most=50)
    tuner.stop_tuning_job()
    tuner.wait()
    job = tuner.describe()
    assert job.hyper_parameter_tuning_job_status == "Stopped"
    print("HyperparameterTuner: stopped")


def failing(folder: Path) -> None:
    said = ""
    try:
        tuned(folder, "v3-failing", regex="accuracy=([0-9.]+);").wait()
    except FailedStatusError as error:
        said = str(error)
    assert "No objective metrics found" in said, said
    print("HyperparameterTuner: a failure told with its cause")


if __name__ == "__main__":
    main()
    sys.exit(0)
