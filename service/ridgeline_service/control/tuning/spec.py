"""A CreateHyperParameterTuningJob request as small types, with everything impossible refused.

Pure: the same request always gives the same spec, so that rows hold the request alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from ridgeline_service.control.tuning.ranges import Dimension, dimensions_of
from ridgeline_service.errors import ValidationException

MOST_TRIALS = 750
AUTOTUNE_TRIALS = 20
OBJECTIVE_PARAMETER = "_tuning_objective_metric"
EPOCHS = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")
"""Hyperparameters from which SageMaker infers what Hyperband's MaxResource is."""


@dataclass(frozen=True)
class Objective:
    """The metric that is searched for the best of, and the ``regex`` that finds it in the log."""

    metric: str
    maximize: bool
    regex: str = ""

    @property
    def type(self) -> str:
        return "Maximize" if self.maximize else "Minimize"

    def score(self, value: float) -> float:
        """More is better."""
        return value if self.maximize else -value


@dataclass(frozen=True)
class Definition:
    """One kind of trial; ``name`` is empty for the only one that has none."""

    name: str
    objective: Objective
    dimensions: tuple[Dimension, ...]
    request: Mapping[str, Any]


@dataclass(frozen=True)
class Hyperband:
    """In values of the objective that a trial reports, such as one for each epoch."""

    min_resource: int
    max_resource: int


@dataclass(frozen=True)
class TuningSpec:
    """``max_runtime_s``, ``target`` and ``patience`` (trials without improvement) are None where
    they end nothing; ``hyperband`` is None with other strategies."""

    strategy: str
    definitions: tuple[Definition, ...]
    max_trials: int
    max_parallel: int
    max_runtime_s: float | None
    stops_early: bool
    hyperband: Hyperband | None
    target: float | None
    patience: int | None
    until_converged: bool

    def definition(self, number: int) -> Definition:
        """Trials are shared out evenly; ``number`` counts them from 1."""
        return self.definitions[(number - 1) % len(self.definitions)]

    def index(self, number: int) -> int:
        """Which trial of its definition that is, from 1."""
        return (number - 1) // len(self.definitions) + 1

    def named(self, name: str) -> Definition:
        return next(each for each in self.definitions if each.name == name)


def spec_of(request: Mapping[str, Any]) -> TuningSpec:
    """Raises ValidationException for what cannot be searched."""
    config = request["HyperParameterTuningJobConfig"]
    strategy = config["Strategy"]
    definitions = _definitions(request, config)
    limits = config["ResourceLimits"]
    criteria = config.get("TuningJobCompletionCriteria") or {}
    autotuned = "Autotune" in request
    early = config.get("TrainingJobEarlyStoppingType", "Auto" if autotuned else "Off") == "Auto"
    if strategy == "Hyperband":
        if early and not autotuned:
            raise ValidationException(
                "TrainingJobEarlyStoppingType must be Off with strategy Hyperband, which stops "
                "training jobs by itself."
            )
        early = False
    runtime = limits.get("MaxRuntimeInSeconds")
    not_improving = criteria.get("BestObjectiveNotImproving") or {}
    convergence = criteria.get("ConvergenceDetected") or {}
    return TuningSpec(
        strategy=strategy,
        definitions=definitions,
        max_trials=_max_trials(strategy, limits, definitions, autotuned=autotuned),
        max_parallel=limits["MaxParallelTrainingJobs"],
        max_runtime_s=None if runtime is None else float(runtime),
        stops_early=early,
        hyperband=_hyperband(config, definitions) if strategy == "Hyperband" else None,
        target=criteria.get("TargetObjectiveMetricValue"),
        patience=not_improving.get("MaxNumberOfTrainingJobsNotImproving"),
        until_converged=convergence.get("CompleteOnConvergence") == "Enabled",
    )


def _definitions(request: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Definition, ...]:
    one, several = request.get("TrainingJobDefinition"), request.get("TrainingJobDefinitions")
    if (one is None) == (not several):
        raise ValidationException(
            "Give either TrainingJobDefinition or TrainingJobDefinitions, and not both."
        )
    if one is not None:
        objective = config.get("HyperParameterTuningJobObjective") or one.get("TuningObjective")
        ranges = config.get("ParameterRanges") or one.get("HyperParameterRanges")
        return (_definition(one.get("DefinitionName", ""), one, objective, ranges),)
    if config.get("ParameterRanges") or config.get("HyperParameterTuningJobObjective"):
        raise ValidationException(
            "With TrainingJobDefinitions, ranges and objectives stand in each definition "
            "(HyperParameterRanges, TuningObjective) and not in HyperParameterTuningJobConfig."
        )
    found: list[Definition] = []
    for each in several or ():
        name = each.get("DefinitionName", "")
        if not name or any(name == other.name for other in found):
            raise ValidationException(
                "Each of TrainingJobDefinitions needs a DefinitionName that no other one has."
            )
        objective, ranges = each.get("TuningObjective"), each.get("HyperParameterRanges")
        found.append(_definition(name, each, objective, ranges))
    return tuple(found)


def _definition(
    name: str,
    request: Mapping[str, Any],
    objective: Mapping[str, Any] | None,
    ranges: Mapping[str, Any] | None,
) -> Definition:
    where = f"training job definition {name!r}" if name else "the tuning job"
    if objective is None:
        raise ValidationException(f"No objective is given for {where}: what is tuned for?")
    metric = objective["MetricName"]
    metrics = request["AlgorithmSpecification"].get("MetricDefinitions") or ()
    regex = next((item["Regex"] for item in metrics if item["Name"] == metric), None)
    if regex is None:
        defined = ", ".join(item["Name"] for item in metrics) or "none"
        raise ValidationException(
            f"A metric is required for this hyperparameter tuning job objective. Provide a metric "
            f"in the metric definitions: the objective is {metric!r}, and defined are: {defined}."
        )
    dimensions = dimensions_of(ranges)
    if not dimensions:
        raise ValidationException(f"No parameter ranges are given for {where}.")
    static = request.get("StaticHyperParameters") or {}
    for dimension in dimensions:
        if dimension.name in static:
            raise ValidationException(
                f"Hyperparameter {dimension.name!r} is both static and tunable; it may be one."
            )
    tuned = Objective(metric, objective["Type"] == "Maximize", regex)
    return Definition(name, tuned, dimensions, request)


def _max_trials(
    strategy: str,
    limits: Mapping[str, Any],
    definitions: tuple[Definition, ...],
    *,
    autotuned: bool,
) -> int:
    asked: int | None = limits.get("MaxNumberOfTrainingJobs")
    if strategy != "Grid":
        return asked or (AUTOTUNE_TRIALS if autotuned else MOST_TRIALS)
    if len(definitions) > 1:
        raise ValidationException("Strategy Grid searches one training job definition only.")
    dimensions = definitions[0].dimensions
    if any(dimension.kind != "categorical" for dimension in dimensions):
        raise ValidationException("Only categorical parameters can be searched by strategy Grid.")
    points = prod(len(dimension.values) for dimension in dimensions)
    if asked is not None and asked != points:
        raise ValidationException(
            f"MaxNumberOfTrainingJobs is {asked}, and the grid has {points} points. Leave it out "
            f"with strategy Grid, or set it to {points}."
        )
    if points > MOST_TRIALS:
        raise ValidationException(
            f"The grid has {points} points, and a tuning job starts at most {MOST_TRIALS} "
            "training jobs."
        )
    return points


def _hyperband(config: Mapping[str, Any], definitions: tuple[Definition, ...]) -> Hyperband:
    given = (config.get("StrategyConfig") or {}).get("HyperbandStrategyConfig") or {}
    least = given.get("MinResource", 1)
    most = given.get("MaxResource") or _inferred_epochs(definitions)
    if least >= most:
        raise ValidationException(
            f"MinResource of Hyperband is {least}; it must be less than MaxResource, {most}."
        )
    return Hyperband(least, most)


def _inferred_epochs(definitions: tuple[Definition, ...]) -> int:
    for definition in definitions:
        static = definition.request.get("StaticHyperParameters") or {}
        for name in EPOCHS:
            text = static.get(name, "").strip('"')
            if text.isdigit() and int(text) > 0:
                return int(text)
    raise ValidationException(
        "Hyperband needs MaxResource in its HyperbandStrategyConfig: how many values of the "
        f"objective a training job reports. It is inferred from a static {', '.join(EPOCHS)} only."
    )
