"""Jobs of all kinds that have a log, as commands find, list and show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ridgeline.cli import _common
from ridgeline.errors import NotFound

if TYPE_CHECKING:
    from ridgeline._job import Job
    from ridgeline.session import Session


def kinds() -> tuple[type[Job], ...]:
    from ridgeline.processing_job import ProcessingJob  # boto3: not for --help
    from ridgeline.training_job import TrainingJob
    from ridgeline.transform_job import TransformJob

    return TrainingJob, ProcessingJob, TransformJob


def find_job(session: Session, name: str) -> Job:
    """The job of that name, of whichever kind. Raises NotFound."""
    for kind in kinds():
        job = kind(name, session)
        try:
            job.describe()
        except NotFound:
            continue
        return job
    raise NotFound(f"There is no job {name!r}.", hint="`ridgeline jobs` lists jobs.")


def endpoint_or_job(session: Session, name: str) -> Job | None:
    """None if it is an endpoint. Raises NotFound if it is neither."""
    from ridgeline._endpoints import describe

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
            stage = summary.get("SecondaryStatus", "")
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
