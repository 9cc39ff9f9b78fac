"""The search for good hyperparameters, with the names of SageMaker's SDK.

``fit`` creates a tuning job, whose trials are training jobs of the estimator. Waiting is
``tuning_job``'s business, ranges are ``parameter``'s, tables ``tuning_analytics``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ridgeline._names import clean_name, image_name
from ridgeline.errors import InvalidInput, NotFound
from ridgeline.estimator import Estimator
from ridgeline.inputs import Inputs
from ridgeline.parameter import ParameterRange, parameter_ranges, ranges_in
from ridgeline.predictor import Predictor
from ridgeline.session import Session
from ridgeline.tuning_analytics import HyperparameterTuningJobAnalytics
from ridgeline.tuning_job import NAME_LENGTH, TuningJob

_OBJECTIVE = "_tuning_objective_metric"
_DEFINITION = (
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "StoppingCondition",
    "CheckpointConfig",
    "EnableNetworkIsolation",
    "EnableManagedSpotTraining",
    "RetryStrategy",
    "Environment",
)


class WarmStartTypes(Enum):
    """What a new search may change of what its parents did."""

    IDENTICAL_DATA_AND_ALGORITHM = "IdenticalDataAndAlgorithm"
    TRANSFER_LEARNING = "TransferLearning"


@dataclass(frozen=True)
class WarmStartConfig:
    """``parents`` are the names of tuning jobs whose trials the search begins with."""

    warm_start_type: WarmStartTypes
    parents: Iterable[str]

    def to_input_req(self) -> dict[str, Any]:
        parents = [{"HyperParameterTuningJobName": name} for name in self.parents]
        return {
            "WarmStartType": WarmStartTypes(self.warm_start_type).value,
            "ParentHyperParameterTuningJobs": parents,
        }


class HyperparameterTuner:
    """Searches ``hyperparameter_ranges`` for the best ``objective_metric_name``, which the
    estimator's script prints as its metric definitions say. ``strategy`` is Bayesian, Random,
    Hyperband (with ``strategy_config``) or Grid."""

    def __init__(
        self,
        estimator: Estimator,
        objective_metric_name: str,
        hyperparameter_ranges: Mapping[str, ParameterRange],
        metric_definitions: Sequence[Mapping[str, str]] | None = None,
        strategy: str = "Bayesian",
        objective_type: str = "Maximize",
        max_jobs: int | None = None,
        max_parallel_jobs: int = 1,
        max_runtime_in_seconds: int | None = None,
        tags: Sequence[Mapping[str, str]] | None = None,
        base_tuning_job_name: str | None = None,
        warm_start_config: WarmStartConfig | None = None,
        strategy_config: Mapping[str, Any] | None = None,
        completion_criteria_config: Mapping[str, Any] | None = None,
        early_stopping_type: str = "Off",
        random_seed: int | None = None,
    ) -> None:
        if not hyperparameter_ranges:
            raise InvalidInput(
                "hyperparameter_ranges is empty.",
                hint="Like {'lr': ContinuousParameter(1e-4, 1e-1, 'Logarithmic')}.",
            )
        self.estimator = estimator
        self.objective_metric_name = objective_metric_name
        self.hyperparameter_ranges = dict(hyperparameter_ranges)
        self.metric_definitions = [dict(item) for item in metric_definitions or ()]
        self.strategy = strategy
        self.objective_type = objective_type
        # SageMaker's SDK tries one point if nobody says how many; a grid has a number of its own.
        self.max_jobs = 1 if max_jobs is None and strategy != "Grid" else max_jobs
        self.max_parallel_jobs = max_parallel_jobs
        self.max_runtime_in_seconds = max_runtime_in_seconds
        self.tags = [dict(tag) for tag in tags or ()]
        self.base_tuning_job_name = base_tuning_job_name
        self.warm_start_config = warm_start_config
        self.strategy_config = dict(strategy_config or {})
        self.completion_criteria_config = dict(completion_criteria_config or {})
        self.early_stopping_type = early_stopping_type
        self.random_seed = random_seed
        self.latest_tuning_job: TuningJob | None = None

    def __repr__(self) -> str:
        return f"HyperparameterTuner({self.estimator!r}, {self.objective_metric_name!r})"

    @property
    def sagemaker_session(self) -> Session:
        return self.estimator.sagemaker_session

    def fit(self, inputs: Inputs = None, job_name: str | None = None, wait: bool = True) -> None:
        """Search. ``inputs`` are those of ``Estimator.fit``. With ``wait``, trials show as they
        end.

        Raises TuningFailed if no trial reached an objective, InvalidInput for what the service
        refuses, AlreadyExists if the name is taken.
        """
        session = self.sagemaker_session
        name = job_name or self._new_name()
        request = self._request(name, inputs)
        with session.call():
            session.sagemaker_client.create_hyper_parameter_tuning_job(**request)
        self.latest_tuning_job = TuningJob(name, session)
        if wait:
            self.wait()

    def wait(self) -> None:
        self._job().wait()

    def stop_tuning_job(self) -> None:
        self._job().stop()

    def describe(self) -> dict[str, Any]:
        return self._job().describe()

    def best_training_job(self) -> str:
        """Its name. Raises NotReady while no trial has ended with an objective."""
        return str(self._job().best()["TrainingJobName"])

    def best_estimator(self) -> Estimator:
        """The estimator of the best training job, with its model and hyperparameters."""
        return Estimator.attach(self.best_training_job(), self.sagemaker_session)

    def deploy(
        self, initial_instance_count: int = 1, instance_type: str | None = None, **deployment: Any
    ) -> Predictor:
        """Serve the best model, with the arguments of ``Estimator.deploy``."""
        return self.best_estimator().deploy(initial_instance_count, instance_type, **deployment)

    def analytics(self) -> HyperparameterTuningJobAnalytics:
        """The trials as a table."""
        return HyperparameterTuningJobAnalytics(self._job().name, self.sagemaker_session)

    @classmethod
    def attach(
        cls, tuning_job_name: str, sagemaker_session: Session | None = None
    ) -> HyperparameterTuner:
        """The tuner of a tuning job that exists. Raises NotFound if there is none, InvalidInput for
        one of several training job definitions."""
        session = sagemaker_session or Session()
        job = TuningJob(tuning_job_name, session)
        found = job.describe()
        definition, config = (
            found.get("TrainingJobDefinition"),
            found["HyperParameterTuningJobConfig"],
        )
        if definition is None:
            raise InvalidInput(
                f"Tuning job {tuning_job_name!r} has several training job definitions, and a tuner "
                "has one.",
                hint="Estimator.attach(NAME) attaches to one of its training jobs.",
            )
        objective, limits = config["HyperParameterTuningJobObjective"], config["ResourceLimits"]
        tuner = cls(
            _estimator_of(definition, session),
            objective["MetricName"],
            ranges_in(config["ParameterRanges"]),
            strategy=config["Strategy"],
            objective_type=objective["Type"],
            max_jobs=limits.get("MaxNumberOfTrainingJobs"),
            max_parallel_jobs=limits["MaxParallelTrainingJobs"],
            max_runtime_in_seconds=limits.get("MaxRuntimeInSeconds"),
            strategy_config=config.get("StrategyConfig"),
            completion_criteria_config=config.get("TuningJobCompletionCriteria"),
            early_stopping_type=config.get("TrainingJobEarlyStoppingType", "Off"),
            random_seed=config.get("RandomSeed"),
        )
        tuner.latest_tuning_job = job
        return tuner

    def identical_dataset_and_algorithm_tuner(
        self, additional_parents: Iterable[str] = ()
    ) -> HyperparameterTuner:
        """A tuner that goes on from what this one found, on the same data with the same image."""
        kind = WarmStartTypes.IDENTICAL_DATA_AND_ALGORITHM
        return self._warm(kind, additional_parents, self.estimator)

    def transfer_learning_tuner(
        self, additional_parents: Iterable[str] = (), estimator: Estimator | None = None
    ) -> HyperparameterTuner:
        """A tuner that begins with what this one found, for other data or another image."""
        kind = WarmStartTypes.TRANSFER_LEARNING
        return self._warm(kind, additional_parents, estimator or self.estimator)

    def _warm(
        self, kind: WarmStartTypes, more: Iterable[str], estimator: Estimator
    ) -> HyperparameterTuner:
        parents = sorted({self._job().name, *more})
        return HyperparameterTuner(
            estimator,
            self.objective_metric_name,
            self.hyperparameter_ranges,
            self.metric_definitions,
            strategy=self.strategy,
            objective_type=self.objective_type,
            max_jobs=self.max_jobs,
            max_parallel_jobs=self.max_parallel_jobs,
            max_runtime_in_seconds=self.max_runtime_in_seconds,
            tags=self.tags,
            warm_start_config=WarmStartConfig(kind, parents),
            strategy_config=self.strategy_config,
            completion_criteria_config=self.completion_criteria_config,
            early_stopping_type=self.early_stopping_type,
            random_seed=self.random_seed,
        )

    def _job(self) -> TuningJob:
        if self.latest_tuning_job is None:
            raise NotFound("This tuner has no tuning job.", hint="Call fit() or attach().")
        return self.latest_tuning_job

    def _new_name(self) -> str:
        stamp = f"{int(self.sagemaker_session.clock.wall() * 10):x}"
        base = self.base_tuning_job_name or image_name(self.estimator.image_uri)
        return f"{clean_name(base, NAME_LENGTH - len(stamp) - 1)}-{stamp}"

    def _request(self, name: str, inputs: Inputs) -> dict[str, Any]:
        training = self.estimator.training_request(name, inputs)
        if self.metric_definitions:
            training["AlgorithmSpecification"]["MetricDefinitions"] = self.metric_definitions
        static = training.get("HyperParameters") or {}
        definition = {key: training[key] for key in _DEFINITION if key in training}
        definition["HyperParameterTuningResourceConfig"] = {
            key: value
            for key, value in training["ResourceConfig"].items()
            if key != "KeepAlivePeriodInSeconds"
        }
        definition["StaticHyperParameters"] = {
            key: value for key, value in static.items() if key not in self.hyperparameter_ranges
        }
        request: dict[str, Any] = {
            "HyperParameterTuningJobName": name,
            "HyperParameterTuningJobConfig": self._config(),
            "TrainingJobDefinition": definition,
        }
        if self.warm_start_config is not None:
            request["WarmStartConfig"] = self.warm_start_config.to_input_req()
        if self.tags or training.get("Tags"):
            request["Tags"] = self.tags or training["Tags"]
        return request

    def _config(self) -> dict[str, Any]:
        limits = {
            "MaxNumberOfTrainingJobs": self.max_jobs,
            "MaxParallelTrainingJobs": self.max_parallel_jobs,
            "MaxRuntimeInSeconds": self.max_runtime_in_seconds,
        }
        config: dict[str, Any] = {
            "Strategy": self.strategy,
            "ResourceLimits": {key: value for key, value in limits.items() if value is not None},
            "HyperParameterTuningJobObjective": {
                "Type": self.objective_type,
                "MetricName": self.objective_metric_name,
            },
            "ParameterRanges": parameter_ranges(
                self.hyperparameter_ranges, as_json=self.estimator.entry_point is not None
            ),
            "TrainingJobEarlyStoppingType": self.early_stopping_type,
        }
        optional = {
            "StrategyConfig": self.strategy_config or None,
            "TuningJobCompletionCriteria": self.completion_criteria_config or None,
            "RandomSeed": self.random_seed,
        }
        config.update((key, value) for key, value in optional.items() if value is not None)
        return config


def _estimator_of(definition: Mapping[str, Any], session: Session) -> Estimator:
    """The estimator that a definition was made from. Its code lies in S3 already."""
    algorithm = definition["AlgorithmSpecification"]
    resources = definition.get("HyperParameterTuningResourceConfig") or definition["ResourceConfig"]
    static = definition.get("StaticHyperParameters") or {}
    return Estimator(
        algorithm["TrainingImage"],
        role=definition["RoleArn"],
        instance_count=resources.get("InstanceCount", 1),
        instance_type=resources.get("InstanceType"),
        volume_size=resources.get("VolumeSizeInGB", 30),
        max_run=definition["StoppingCondition"].get("MaxRuntimeInSeconds", 86_400),
        output_path=definition["OutputDataConfig"]["S3OutputPath"],
        sagemaker_session=session,
        hyperparameters={key: value for key, value in static.items() if key != _OBJECTIVE},
        metric_definitions=algorithm.get("MetricDefinitions"),
        environment=definition.get("Environment"),
    )
