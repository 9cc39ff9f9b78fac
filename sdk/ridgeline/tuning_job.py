"""One tuning job as the client sees it: looked at, waited for with its trials, stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ridgeline._trials import search_of
from ridgeline.errors import NotFound, NotReady, TuningFailed, Unavailable

if TYPE_CHECKING:
    from ridgeline.session import Session

ENDED = frozenset({"Completed", "Failed", "Stopped"})
NAME_LENGTH = 32
"""Of a tuning job at most; other things may have longer names."""

# The control plane may be restarted while we wait: it comes back in seconds and loses nothing.
_PATIENCE_S = 60.0
_POLL_S = 0.5
_AWS_POLL_S = 10.0


class TuningJob:
    """A tuning job of this name. Nothing is asked of the service before the first call."""

    def __init__(self, name: str, sagemaker_session: Session) -> None:
        self.name = name
        self.sagemaker_session = sagemaker_session

    def __repr__(self) -> str:
        return f"TuningJob({self.name!r})"

    def describe(self) -> dict[str, Any]:
        """DescribeHyperParameterTuningJob. Raises NotFound if there is no such job."""
        session = self.sagemaker_session
        with session.call():
            answer = session.sagemaker_client.describe_hyper_parameter_tuning_job(
                HyperParameterTuningJobName=self.name
            )
        return {key: value for key, value in answer.items() if key != "ResponseMetadata"}

    def trials(self, *, best_first: bool = False) -> list[dict[str, Any]]:
        """Its training jobs, in the order in which they were started; or those that have an
        objective, the best first."""
        query: dict[str, Any] = {}
        if best_first:
            objective = self.describe()["HyperParameterTuningJobConfig"].get(
                "HyperParameterTuningJobObjective", {}
            )
            order = "Descending" if objective.get("Type") == "Maximize" else "Ascending"
            query = {"SortBy": "FinalObjectiveMetricValue", "SortOrder": order}
        session = self.sagemaker_session
        with session.call():
            pages = session.sagemaker_client.get_paginator(
                "list_training_jobs_for_hyper_parameter_tuning_job"
            ).paginate(
                HyperParameterTuningJobName=self.name,
                PaginationConfig={"PageSize": 100},
                **query,
            )
            return [item for page in pages for item in page["TrainingJobSummaries"]]

    def best(self) -> dict[str, Any]:
        """The summary of its best training job. Raises NotReady while none has an objective."""
        found = self.describe()
        if "BestTrainingJob" not in found:
            raise NotReady(
                f"Tuning job {self.name!r} has no best training job: it is "
                f"{found['HyperParameterTuningJobStatus']}, and no training job has ended with a "
                "value of the objective.",
                hint=f"See `ridgeline describe {self.name}`.",
            )
        return dict(found["BestTrainingJob"])

    def stop(self) -> None:
        """Ask it and its training jobs to end. ``wait`` tells when they have."""
        session = self.sagemaker_session
        with session.call():
            session.sagemaker_client.stop_hyper_parameter_tuning_job(
                HyperParameterTuningJobName=self.name
            )

    def wait(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait until it has ended, showing its trials.

        Raises TuningFailed with its reason if it failed, NotReady after ``timeout_s`` seconds,
        Unavailable if the service stays away for a minute. Ctrl-C leaves the job as it is.
        """
        session, clock = self.sagemaker_session, self.sagemaker_session.clock
        begin = seen = clock.monotonic()
        try:
            with session.progress.trials(f"Tuning job {self.name}") as display:
                while True:
                    try:
                        # Described first: what has ended by then is in the list of its trials.
                        described = self.describe()
                        display.update(search_of(described, self.trials()))
                        seen = clock.monotonic()
                        if described["HyperParameterTuningJobStatus"] in ENDED:
                            self._check(described)
                            return described
                    except NotFound:
                        raise TuningFailed(f"Tuning job {self.name!r} was deleted.") from None
                    except Unavailable:
                        if clock.monotonic() - seen > _PATIENCE_S:
                            raise
                    if timeout_s is not None and clock.monotonic() - begin > timeout_s:
                        raise NotReady(
                            f"Tuning job {self.name!r} has not ended after {timeout_s:g} s.",
                            hint=self._how_to_go_on(),
                        )
                    clock.sleep(_AWS_POLL_S if session.is_aws else _POLL_S)
        except KeyboardInterrupt:
            session.progress.note(
                f"Tuning job {self.name!r} goes on by itself. {self._how_to_go_on()}"
            )
            raise

    def _how_to_go_on(self) -> str:
        return (
            f"See it with `ridgeline describe {self.name}`, end it with "
            f"`ridgeline stop {self.name}`."
        )

    def _check(self, described: Mapping[str, Any]) -> None:
        if described["HyperParameterTuningJobStatus"] == "Failed":
            raise TuningFailed(
                f"Tuning job {self.name!r} failed: {described.get('FailureReason', '')}",
                hint=f"`ridgeline describe {self.name}` lists its training jobs; "
                "`ridgeline logs` has what one of them wrote.",
            )
