"""AWS's sagemaker SDK v2, unmodified: a tuner's fit, attach, warm start, stop and deploy."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import sagemaker
from sagemaker.parameter import CategoricalParameter, ContinuousParameter, IntegerParameter
from sagemaker.sklearn import SKLearn
from sagemaker.tuner import HyperparameterTuner

TRAIN = """
import argparse, os
from pathlib import Path

import joblib
import numpy
from sklearn.linear_model import Ridge

parser = argparse.ArgumentParser()
parser.add_argument("--alpha", type=float, required=True)
parser.add_argument("--degree", type=int, required=True)
parser.add_argument("--kind", choices=["plain", "fancy"], required=True)
parser.add_argument("--rows", type=int, required=True)
args = parser.parse_args()
x = numpy.linspace(0, 1, args.rows)[:, None]
model = Ridge(alpha=args.alpha).fit(x, 3 * x[:, 0])
error = float(numpy.mean((model.predict(x) - 3 * x[:, 0]) ** 2)) + (args.kind == "fancy")
print(f"validation error: {error:.8f};", flush=True)
joblib.dump(model, Path(os.environ["SM_MODEL_DIR"]) / "model.joblib")
"""
SERVE = """
import json
import os

import joblib


def model_fn(folder):
    return joblib.load(os.path.join(folder, "model.joblib"))


def input_fn(data, content_type):
    return json.loads(data)


def predict_fn(rows, model):
    return model.predict(rows).tolist()


def output_fn(values, accept):
    return json.dumps(values)
"""
METRICS = [{"Name": "validation:error", "Regex": "validation error: ([0-9.]+);"}]
RANGES = {
    "alpha": ContinuousParameter(1e-4, 10.0, scaling_type="Logarithmic"),
    "degree": IntegerParameter(1, 4),
    "kind": CategoricalParameter(["plain", "fancy"]),
}


def main() -> None:
    session = sagemaker.Session()
    proxied = "AWS_ENDPOINT_URL" not in os.environ
    role = sagemaker.get_execution_role() if proxied else os.environ["RIDGELINE_ROLE_ARN"]
    with tempfile.TemporaryDirectory() as name:
        code = Path(name) / "code"
        code.mkdir()
        (code / "train.py").write_text(TRAIN)
        (code / "inference.py").write_text(SERVE)
        estimator = SKLearn(
            entry_point="train.py",
            source_dir=str(code),
            role=role,
            framework_version="1.2-1",
            instance_type="ml.m5.large",
            hyperparameters={"rows": 50},
            sagemaker_session=session,
        )
        tuner = HyperparameterTuner(
            estimator,
            objective_metric_name="validation:error",
            objective_type="Minimize",
            hyperparameter_ranges=RANGES,
            metric_definitions=METRICS,
            max_jobs=4,
            max_parallel_jobs=2,
            random_seed=3,
            tags=[{"Key": "team", "Value": "red"}],
        )
        tuner.fit()
        searched(tuner)
        attached = HyperparameterTuner.attach(tuner.latest_tuning_job.name, session)
        assert attached.best_training_job() == tuner.best_training_job()
        assert set(attached.hyperparameter_ranges()) == set(tuner.hyperparameter_ranges())
        warm_started(tuner)
        if not proxied:
            deployed(tuner, code)


def searched(tuner: HyperparameterTuner) -> None:
    table = tuner.analytics().dataframe()
    assert len(table) == 4, table
    assert set(table["TrainingJobStatus"]) == {"Completed"}, table
    best = table.sort_values("FinalObjectiveValue").iloc[0]
    assert best["TrainingJobName"] == tuner.best_training_job()
    assert tuner.analytics().tuning_ranges["degree"]["MaxValue"] == "4"
    estimator = tuner.best_estimator()
    assert estimator.model_data.endswith(f"{tuner.best_training_job()}/output/model.tar.gz")
    assert float(estimator.hyperparameters()["alpha"]) == best["alpha"]
    described = tuner.describe()
    assert described["ObjectiveStatusCounters"]["Succeeded"] == 4, described
    print("HyperparameterTuner: fitted, analysed, the best estimator attached")


def warm_started(parent: HyperparameterTuner) -> None:
    tuner = parent.identical_dataset_and_algorithm_tuner()
    tuner.max_jobs, tuner.max_parallel_jobs = 2, 2
    tuner.base_tuning_job_name = "warm"  # names tell minutes apart only
    tuner.fit(wait=False)
    tuner.wait()
    described = tuner.describe()
    assert described["TrainingJobStatusCounters"]["Completed"] == 2, described
    assert "OverallBestTrainingJob" in described
    stopped = parent.transfer_learning_tuner()
    stopped.max_jobs = 50
    stopped.base_tuning_job_name = "stopped"
    stopped.fit(wait=False)
    stopped.stop_tuning_job()
    stopped.wait()
    assert stopped.describe()["HyperParameterTuningJobStatus"] == "Stopped"
    print("HyperparameterTuner: attached, started warm, stopped")


def deployed(tuner: HyperparameterTuner, code: Path) -> None:
    predictor = tuner.deploy(
        initial_instance_count=1,
        instance_type="ml.m5.large",
        entry_point="inference.py",
        source_dir=str(code),
        serializer=sagemaker.serializers.JSONSerializer(),
        deserializer=sagemaker.deserializers.JSONDeserializer(),
    )
    [value] = predictor.predict([[0.5]])
    assert 0 < value < 3, value
    predictor.delete_endpoint()
    print("HyperparameterTuner: the best model deployed")


if __name__ == "__main__":
    main()
    sys.exit(0)
