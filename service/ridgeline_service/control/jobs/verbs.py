"""What the verbs of all kinds of jobs share: Create, Describe, List, Stop, Delete over one table.

A verb writes what is wanted and returns; the reconciler brings it about. A kind brings how its
requests are planned and how its rows are shown.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.verbs import WARNING_TAG
from ridgeline_service.control.jobs.warm_pools import keep_alive_s, pool_of
from ridgeline_service.control.listing import (
    bad_token_refused,
    list_filter,
    tags_in,
    with_token,
)
from ridgeline_service.errors import ResourceInUse, ValidationException
from ridgeline_service.store import jobs as rows
from ridgeline_service.store import journal, warm_pools
from ridgeline_service.store.job_records import (
    JobKind,
    JobPhase,
    JobRecord,
    JobSpec,
    JobStatus,
    Moment,
)
from ridgeline_service.store.states import Desired

_MEMBERS = {
    JobKind.TRAINING: "TrainingJob",
    JobKind.PROCESSING: "ProcessingJob",
    JobKind.TRANSFORM: "TransformJob",
}


class JobVerbs(ABC):
    """The verbs of one kind."""

    kind: ClassVar[JobKind]
    default_order: ClassVar[str] = "Ascending"
    """Of a List call that names none."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._member = _MEMBERS[self.kind]

    @abstractmethod
    def plan(self, request: Mapping[str, Any]) -> JobSpec:
        """Raises ValidationException or ResourceLimitExceeded for what can never run here."""

    @abstractmethod
    def shown(self, job: JobRecord, now: int) -> dict[str, Any]:
        """The answer of Describe."""

    @abstractmethod
    def summary(self, job: JobRecord) -> dict[str, Any]:
        """An entry of List."""

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        context, tags = self._context, tags_in(request)
        arn = context.arns.of(self.kind, request[f"{self._member}Name"])
        with context.db.read() as connection:
            if rows.get_job(connection, arn) is not None:
                raise self._taken(arn)
        spec = self.plan(request)
        try:
            with context.db.write() as connection:
                add_job(context, connection, request, spec, tags, self.kind)
        except IntegrityError as error:
            raise self._taken(arn) from error
        context.changed()
        return {f"{self._member}Arn": arn}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.read() as connection:
            job = self.find(connection, request)
        return self.shown(job, self._context.now())

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with bad_token_refused(), self._context.db.read() as connection:
            wanted = list_filter(request, self.default_order)
            jobs, token = rows.page_jobs(connection, self.kind, wanted)
        shown = [self.summary(job) for job in jobs]
        return with_token({f"{self._member}Summaries": shown}, token)

    def stop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        context = self._context
        with context.db.write() as connection:
            job = self.find(connection, request, for_update=True)
            if job.status.ended:
                raise ValidationException(
                    f"The request was rejected because the {self.kind.words} is in status "
                    f"{job.status}."
                )
            if job.status is JobStatus.STOPPING:
                return {}
            ask_to_stop(context, connection, job)
        context.changed()
        return {}

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What it made and its log stay."""
        context = self._context
        with context.db.write() as connection:
            job = self.find(connection, request, for_update=True)
            if not job.status.ended:
                raise ResourceInUse(
                    f"{self.kind.words.capitalize()} {job.name!r} is {job.status}.",
                    hint="Stop it first.",
                )
            rows.delete_job(connection, job.arn)
            journal.remove_all_tags(connection, job.arn)
            context.event(connection, job.arn, "Deleted")
        return {}

    def find(
        self, connection: Connection, request: Mapping[str, Any], *, for_update: bool = False
    ) -> JobRecord:
        """The job that a request names. Raises ValidationException, in SageMaker's words."""
        name = request[f"{self._member}Name"]
        arn = self._context.arns.of(self.kind, name)
        job = rows.get_job(connection, arn, for_update=for_update)
        if job is None:
            raise ValidationException(self.not_found(name))
        return job

    def not_found(self, name: str) -> str:
        return f"Could not find requested job with name: {name}"

    def _taken(self, arn: str) -> ResourceInUse:
        return ResourceInUse(
            f"{self.kind.words.capitalize()} names must be unique within an AWS account and "
            f"region, and a {self.kind.words} with this name already exists ({arn})."
        )


def add_job(
    context: Context,
    connection: Connection,
    request: Mapping[str, Any],
    spec: JobSpec,
    tags: Mapping[str, str],
    kind: JobKind = JobKind.TRAINING,
) -> JobRecord:
    """The row of a new job, with its tags. Raises sqlalchemy's IntegrityError if its name is
    taken."""
    now, name = context.now(), request[f"{_MEMBERS[kind]}Name"]
    job = JobRecord(
        arn=context.arns.of(kind, name),
        name=name,
        kind=kind,
        id=context.ids(),
        created_at=now,
        modified_at=now,
        status=JobStatus.IN_PROGRESS,
        phase=JobPhase.QUEUED,
        cause="",
        failure_reason="",
        desired=Desired.RUNNING,
        request={key: value for key, value in request.items() if key != "Tags"},
        spec=spec,
        attempt=0,
        queued_at=now,
        moments=(Moment("Starting", now, f"Starting the {kind.words}"),),
        settled=1,
    )
    warning = {WARNING_TAG: spec.warning[:256]} if spec.warning else {}
    rows.add_job(connection, job)
    if keep_alive_s(request) > 0:
        warm_pools.add_pool(connection, pool_of(job))
    journal.put_tags(connection, job.arn, {**tags, **warning})
    context.event(connection, job.arn, "Created")
    if spec.warning:
        context.event(connection, job.arn, "Warning", message=spec.warning)
    return job


def ask_to_stop(context: Context, connection: Connection, job: JobRecord) -> None:
    """Of a job that has neither ended nor been asked before."""
    rows.change_job(
        connection,
        job.arn,
        status=JobStatus.STOPPING,
        desired=Desired.STOPPED,
        modified_at=context.now(),
    )
    context.event(connection, job.arn, JobStatus.STOPPING, "Requested")
