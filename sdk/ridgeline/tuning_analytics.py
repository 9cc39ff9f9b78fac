"""The trials of a tuning job as a table, with the names of SageMaker's SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ridgeline.errors import Unsupported
from ridgeline.tuning_job import TuningJob

if TYPE_CHECKING:
    from ridgeline.session import Session


class HyperparameterTuningJobAnalytics:
    """Asks the service at every call: there is nothing to refresh."""

    def __init__(self, hyperparameter_tuning_job_name: str, sagemaker_session: Session) -> None:
        self.name = hyperparameter_tuning_job_name
        self._job = TuningJob(hyperparameter_tuning_job_name, sagemaker_session)

    def description(self) -> dict[str, Any]:
        return self._job.describe()

    def training_job_summaries(self) -> list[dict[str, Any]]:
        return self._job.trials()

    def dataframe(self) -> Any:
        """A pandas DataFrame, a row a training job: its hyperparameters, FinalObjectiveValue,
        status and times. Raises Unsupported without pandas."""
        try:
            import pandas  # the client works without it
        except ImportError:
            raise Unsupported(
                "dataframe() needs pandas.",
                hint="pip install pandas, or use training_job_summaries().",
            ) from None
        return pandas.DataFrame([_row(summary) for summary in self.training_job_summaries()])


def _row(summary: Mapping[str, Any]) -> dict[str, Any]:
    began, ended = summary.get("TrainingStartTime"), summary.get("TrainingEndTime")
    final = summary.get("FinalHyperParameterTuningJobObjectiveMetric") or {}
    row: dict[str, Any] = {
        **{name: _value(text) for name, text in summary["TunedHyperParameters"].items()},
        "TrainingJobName": summary["TrainingJobName"],
        "TrainingJobStatus": summary["TrainingJobStatus"],
        "FinalObjectiveValue": final.get("Value"),
        "TrainingStartTime": began,
        "TrainingEndTime": ended,
    }
    if began is not None and ended is not None:
        row["TrainingElapsedTimeSeconds"] = (ended - began).total_seconds()
    return row


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
