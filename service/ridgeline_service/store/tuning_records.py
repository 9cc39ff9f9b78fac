"""Tuning jobs and their trials as frozen values. Times are whole microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import RowMapping

from ridgeline_service.store.job_records import JobStatus
from ridgeline_service.store.records import Document
from ridgeline_service.store.states import Desired


@dataclass(frozen=True)
class TrialRecord:
    """One training job of a tuning job, which keeps here what it knows of it: so that it does not
    matter to the search when the training job is deleted. ``number`` counts from 1; ``parameters``
    are those that were tuned; ``objective`` is the last value of the metric, ``curve`` all of them;
    ``retryable`` says of a failed one that it was not its user's fault."""

    tuning_arn: str
    number: int
    arn: str
    name: str
    definition: str
    parameters: Document
    created_at: int
    modified_at: int
    status: JobStatus = JobStatus.IN_PROGRESS
    failure_reason: str = ""
    retryable: bool = False
    objective: float | None = None
    curve: tuple[float, ...] = ()
    started_at: int | None = None
    ended_at: int | None = None


class TuningStatus(StrEnum):
    """SageMaker's own words."""

    IN_PROGRESS = "InProgress"
    STOPPING = "Stopping"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"

    @property
    def ended(self) -> bool:
        return self not in (TuningStatus.IN_PROGRESS, TuningStatus.STOPPING)


@dataclass(frozen=True)
class TuningRecord:
    """``history`` holds the trials of the parents it was started from, as they were then; ``tags``
    go to every training job."""

    arn: str
    name: str
    created_at: int
    modified_at: int
    status: TuningStatus
    cause: str
    failure_reason: str
    desired: Desired
    request: Document
    seed: int
    tags: Mapping[str, str]
    history: tuple[TrialRecord, ...] = ()
    ended_at: int | None = None
    lock_token: str | None = None
    lock_expires_at: int = 0


def tuning_columns(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a tuning job as columns."""
    found = dict(values)
    for name in ("request", "tags"):
        if name in found:
            found[name] = dict(found[name])
    if "history" in found:
        found["history"] = [asdict(trial) for trial in found["history"]]
    return found


def tuning_of(row: RowMapping) -> TuningRecord:
    return TuningRecord(
        **{
            **row,
            "status": TuningStatus(row["status"]),
            "desired": Desired(row["desired"]),
            "history": tuple(trial_of(item) for item in row["history"]),
        }
    )


def trial_columns(trial: TrialRecord) -> dict[str, Any]:
    """Fields of a trial as columns."""
    return {**asdict(trial), "curve": list(trial.curve)}


def trial_of(row: Mapping[str, Any] | RowMapping) -> TrialRecord:
    found = dict(row)
    return TrialRecord(
        **{**found, "status": JobStatus(found["status"]), "curve": tuple(found["curve"])}
    )
