"""What ``jobs``, ``describe`` and ``stop`` show and do of tuning jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ridgeline.cli import _common
from ridgeline.errors import NotFound

if TYPE_CHECKING:
    from ridgeline.session import Session


def tuning_jobs(session: Session, query: dict[str, Any], last: int) -> list[dict[str, Any]]:
    """Summaries, newest first; ``query`` are filters of ListHyperParameterTuningJobs."""
    with session.call():
        pages = session.sagemaker_client.get_paginator("list_hyper_parameter_tuning_jobs").paginate(
            SortBy="CreationTime",
            SortOrder="Descending",
            PaginationConfig={"MaxItems": last},
            **query,
        )
        return [item for page in pages for item in page["HyperParameterTuningJobSummaries"]]


def stage(summary: dict[str, Any]) -> str:
    """How far a tuning job is: ``3 of 10 trials``."""
    counters = summary["TrainingJobStatusCounters"]
    ended = sum(counters.values()) - counters["InProgress"]
    most = summary["ResourceLimits"].get("MaxNumberOfTrainingJobs")
    return f"{ended}{'' if most is None else f' of {most}'} trials"


def stop_tuning(session: Session, name: str, unknown: NotFound) -> None:
    """Raises ``unknown``, which says that there is no such job, if no tuning job has that name."""
    from ridgeline.tuning_job import TuningJob  # boto3: not for --help

    try:
        TuningJob(name, session).stop()
    except NotFound:
        raise unknown from None


def describe_tuning(session: Session, name: str, *, as_json: bool) -> None:
    """Raises NotFound if there is no such tuning job."""
    from ridgeline._trials import search_of, short
    from ridgeline.tuning_job import TuningJob  # boto3: not for --help

    job = TuningJob(name, session)
    found = job.describe()
    if as_json:
        _common.print_json(found)
        return
    search = search_of(found, job.trials())
    strategy = found["HyperParameterTuningJobConfig"]["Strategy"]
    print(f"{name}: {found['HyperParameterTuningJobStatus']} ({strategy} search)")
    if found.get("FailureReason"):
        print(f"  reason: {found['FailureReason']}")
    names = list(dict.fromkeys(key for trial in search.trials for key in trial.parameters))
    rows = [
        (
            trial.name,
            trial.status,
            "" if trial.objective is None else f"{trial.objective:.6g}",
            *(short(trial.parameters.get(key, "")) for key in names),
            "<- best" if trial.name == search.best else "",
        )
        for trial in search.trials
    ]
    if rows:
        _common.print_table(("TRIAL", "STATUS", search.metric, *names, ""), rows)
