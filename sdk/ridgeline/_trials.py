"""A tuning job's trials as a wait shows them. Knows neither service nor terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

_ENDED = frozenset({"Completed", "Failed", "Stopped"})


@dataclass(frozen=True)
class Trial:
    """One training job of a tuning job; ``seconds`` is None before it has ended."""

    name: str
    status: str
    parameters: Mapping[str, str]
    objective: float | None
    seconds: float | None
    reason: str

    @property
    def ended(self) -> bool:
        return self.status in _ENDED

    @property
    def text(self) -> str:
        """Its parameters, for a reader: ``lr=0.01 depth=3``."""
        return " ".join(f"{name}={short(value)}" for name, value in self.parameters.items())


@dataclass(frozen=True)
class Search:
    """A look at all of it. ``best`` is the name of the best trial so far."""

    name: str
    status: str
    metric: str
    most: int | None
    trials: tuple[Trial, ...]
    best: str


class TrialsDisplay(Protocol):
    def update(self, search: Search) -> None:
        """Show this look. Called at every poll."""


class PlainTrials:
    """A line for each trial that has ended."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._shown: set[str] = set()

    def update(self, search: Search) -> None:
        for trial in search.trials:
            if trial.ended and trial.name not in self._shown:
                self._shown.add(trial.name)
                self._note(_line(trial, search))


def trial_of(summary: Mapping[str, Any]) -> Trial:
    """From an entry of ListTrainingJobsForHyperParameterTuningJob."""
    began, ended = summary.get("TrainingStartTime"), summary.get("TrainingEndTime")
    seconds = (ended - began).total_seconds() if began is not None and ended is not None else None
    final = summary.get("FinalHyperParameterTuningJobObjectiveMetric") or {}
    return Trial(
        name=summary["TrainingJobName"],
        status=summary["TrainingJobStatus"],
        parameters=summary["TunedHyperParameters"],
        objective=final.get("Value"),
        seconds=seconds,
        reason=str(summary.get("FailureReason", "")).partition("\n")[0],
    )


def search_of(described: Mapping[str, Any], summaries: Sequence[Mapping[str, Any]]) -> Search:
    """From DescribeHyperParameterTuningJob and its training jobs."""
    config = described["HyperParameterTuningJobConfig"]
    definitions = described.get("TrainingJobDefinitions") or [{}]
    objective = config.get("HyperParameterTuningJobObjective") or definitions[0].get(
        "TuningObjective", {}
    )
    return Search(
        name=described["HyperParameterTuningJobName"],
        status=described["HyperParameterTuningJobStatus"],
        metric=objective.get("MetricName", "objective"),
        most=config["ResourceLimits"].get("MaxNumberOfTrainingJobs"),
        trials=tuple(trial_of(summary) for summary in summaries),
        best=(described.get("BestTrainingJob") or {}).get("TrainingJobName", ""),
    )


def short(value: str) -> str:
    """A number with four digits, another value without the quotes of JSON."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value.strip('"')


def _line(trial: Trial, search: Search) -> str:
    found = trial.reason if trial.status == "Failed" else "no value"
    if trial.objective is not None:
        found = f"{search.metric}={trial.objective:.6g}"
    mark = "  (best so far)" if trial.name == search.best else ""
    stopped = " stopped" if trial.status == "Stopped" else ""
    return f"  {trial.name}{stopped}: {found}  {trial.text}{mark}"
