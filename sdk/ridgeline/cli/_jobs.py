"""Jobs of all kinds, as commands find, list and show them. What only tuning jobs have is in
``_tuning``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ridgeline._names import is_name
from ridgeline.cli import _common
from ridgeline.errors import InvalidInput, NotFound, did_you_mean

if TYPE_CHECKING:
    from ridgeline._job import Job
    from ridgeline.session import Session
    from ridgeline.tuning_job import TuningJob

_KINDS = ("training", "processing", "transform", "tuning")
_ENDED = frozenset({"Completed", "Failed", "Stopped", "DeleteFailed"})


def kinds() -> tuple[type[Job], ...]:
    from ridgeline.processing_job import ProcessingJob  # boto3: not for --help
    from ridgeline.training_job import TrainingJob
    from ridgeline.transform_job import TransformJob

    return TrainingJob, ProcessingJob, TransformJob


def find_job(session: Session, name: str, kind: str | None = None) -> Job | TuningJob:
    """The job of that name. Kinds have names of their own: of several jobs, the one that runs, or
    the one of ``kind`` ("training", "processing", "transform", "tuning"). Raises NotFound, and
    InvalidInput where the name alone does not tell."""
    found: dict[str, tuple[Job | TuningJob, str]] = {}
    for each in _of_each_kind(session, name) if is_name(name) else ():
        what = short_kind(each)
        if kind is None or what == kind:
            try:
                found[what] = (each, _status(each))
            except NotFound:
                continue
    if not found:
        of_kind = f"{kind} " if kind else ""
        raise NotFound(f"There is no {of_kind}job {name!r}.", hint="`ridgeline jobs` lists jobs.")
    running = [job for job, status in found.values() if status not in _ENDED]
    jobs = running if len(running) == 1 else [job for job, _ in found.values()]
    if len(jobs) > 1:
        states = " and ".join(f"a {what} job ({status})" for what, (_, status) in found.items())
        raise InvalidInput(
            f"The name {name!r} has {states}.",
            hint=f"Say which one: --kind {' or --kind '.join(found)}.",
        )
    return jobs[0]


def endpoint_or_job(session: Session, name: str, kind: str | None = None) -> Job | TuningJob | None:
    """None if it is an endpoint, which is not looked for where the kind of a job is given. Raises
    as ``find_job``."""
    from ridgeline._endpoints import describe

    if kind is not None:
        return find_job(session, name, kind)
    try:
        describe(session, name)
    except NotFound:
        try:
            return find_job(session, name)
        except NotFound:
            raise NotFound(
                f"There is neither an endpoint nor a job {name!r}.",
                hint="`ridgeline ls` lists endpoints, `ridgeline jobs` jobs.",
            ) from None
    return None


def check_kind(value: str | None) -> str | None:
    """The callback of ``--kind``. Raises InvalidInput."""
    if value is not None and value not in _KINDS:
        raise InvalidInput(f"--kind {value!r} is not known.", hint=did_you_mean(value, _KINDS))
    return value


Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        callback=check_kind,
        help="training, processing, transform or tuning, where jobs of several kinds have the "
        "same name. [default: the one that runs]",
        show_default=False,
    ),
]


def short_kind(job: Job | TuningJob) -> str:
    """Like "training"."""
    return job.words.removesuffix(" job") if hasattr(job, "words") else "tuning"


def _of_each_kind(session: Session, name: str) -> Iterator[Job | TuningJob]:
    from ridgeline.tuning_job import NAME_LENGTH, TuningJob  # boto3: not for --help

    for kind in kinds():
        yield kind(name, session)
    if len(name) <= NAME_LENGTH:  # the service refuses to look for a longer one
        yield TuningJob(name, session)


def _status(job: Job | TuningJob) -> str:
    """Raises NotFound."""
    member = getattr(job, "member", "HyperParameterTuningJob")
    return str(job.describe()[f"{member}Status"])


def list_jobs(session: Session, query: Mapping[str, Any], last: int) -> list[dict[str, Any]]:
    """Summaries of all kinds, as the service gives them; ``query`` are filters that all List calls
    have."""
    found: list[dict[str, Any]] = []
    for kind in kinds():
        call = f"list_{kind.words.replace(' ', '_')}s"
        with session.call():
            pages = session.sagemaker_client.get_paginator(call).paginate(
                SortBy="CreationTime",
                SortOrder="Descending",
                PaginationConfig={"MaxItems": last},
                **query,
            )
            found += [item for page in pages for item in page[f"{kind.member}Summaries"]]
    return found


def state(summary: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Name, kind, status and stage of a summary."""
    for kind in kinds():
        if f"{kind.member}Name" in summary:
            status = summary[f"{kind.member}Status"]
            # Kinds without stages say what they wait for where they would say why they failed.
            waits = status not in _ENDED and "FailureReason" in summary
            stage = summary.get("SecondaryStatus", "Pending" if waits else "")
            return summary[f"{kind.member}Name"], kind.words.removesuffix(" job"), status, stage
    raise AssertionError(f"a summary of no kind: {sorted(summary)}")


def describe_job(job: Job, *, as_json: bool) -> None:
    found = job.describe()
    if as_json:
        _common.print_json(found)
        return
    stage = found.get("SecondaryStatus")
    print(f"{job.name}: {found[f'{job.member}Status']}{f' ({stage})' if stage else ''}")
    if found.get("FailureReason"):
        print(f"  reason: {found['FailureReason']}")
    if found.get("ExitMessage"):
        print(f"  exit message: {found['ExitMessage']}")
    resources = _resources(found)
    count = resources.get("InstanceCount", 1)
    print(f"  runs on: {count} x {resources.get('InstanceType', '')}")
    for item in found.get("SecondaryStatusTransitions") or ():
        began, ended = item["StartTime"], item.get("EndTime")
        took = "" if ended is None else f" {(ended - began).total_seconds():.1f} s"
        print(f"  {item['Status']}:{took} {item.get('StatusMessage', '')}".rstrip())
    for metric in found.get("FinalMetricDataList") or ():
        print(f"  metric {metric['MetricName']}: {metric['Value']:g}")
    for name, place in _places(found):
        print(f"  {name}: {place}")


def _resources(found: Mapping[str, Any]) -> Mapping[str, Any]:
    cluster = (found.get("ProcessingResources") or {}).get("ClusterConfig")
    return cluster or found.get("TransformResources") or found.get("ResourceConfig") or {}


def _places(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What it makes, and where that lies."""
    places = []
    model = (found.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
    if model:
        places.append(("model", model))
    for item in (found.get("ProcessingOutputConfig") or {}).get("Outputs") or ():
        places.append((f"output {item['OutputName']}", item["S3Output"]["S3Uri"]))
    if "TransformOutput" in found:
        places.append(("output", found["TransformOutput"]["S3OutputPath"]))
    return places
