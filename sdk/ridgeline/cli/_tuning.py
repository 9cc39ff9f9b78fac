"""What ``jobs``, ``describe`` and ``logs`` show of tuning jobs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ridgeline.cli import _common

if TYPE_CHECKING:
    from ridgeline._logs import Source
    from ridgeline.session import Session
    from ridgeline.tuning_job import TuningJob


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


def trial_logs(job: TuningJob) -> Source:
    """The log streams of its trials, and of no other job whose name begins alike."""
    from ridgeline._job import ENDED  # boto3: not for --help
    from ridgeline._logs import Source

    def lives(session: Session) -> bool:
        return job.describe()["HyperParameterTuningJobStatus"] not in ENDED

    # Like NAME-001-1a2b3c4d/algo-1-1763800000.
    stream = re.compile(rf"{re.escape(job.name)}-\d+-[0-9a-z]+/.*")
    return Source(
        "/aws/sagemaker/TrainingJobs",
        f"{job.name}-",
        lives,
        has=lambda name: stream.fullmatch(name) is not None,
    )


def describe_tuning(job: TuningJob, *, as_json: bool) -> None:
    from ridgeline._trials import search_of, short

    found = job.describe()
    if as_json:
        _common.print_json(found)
        return
    search = search_of(found, job.trials())
    strategy = found["HyperParameterTuningJobConfig"]["Strategy"]
    print(f"{job.name}: {found['HyperParameterTuningJobStatus']} ({strategy} search)")
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
