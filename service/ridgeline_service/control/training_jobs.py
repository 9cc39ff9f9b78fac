"""Training jobs: Create, Describe, List, Stop, Update, Delete.

A verb writes what is wanted and returns; the reconciler brings it about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints import WARNING_TAG
from ridgeline_service.control.job_describing import describe, summary
from ridgeline_service.control.job_planning import JobPlanner
from ridgeline_service.control.listing import (
    bad_token_refused,
    list_filter,
    tags_in,
    with_token,
)
from ridgeline_service.control.names import TRAINING_JOB
from ridgeline_service.errors import ResourceInUse, ValidationException
from ridgeline_service.store import jobs as rows
from ridgeline_service.store import journal
from ridgeline_service.store.job_records import (
    JobKind,
    JobPhase,
    JobRecord,
    JobSpec,
    JobStatus,
    Moment,
)
from ridgeline_service.store.states import Desired

_UPDATED = ("ProfilerConfig", "ProfilerRuleConfigurations", "RemoteDebugConfig")


class TrainingJobs:
    """The training job verbs of the SageMaker API."""

    def __init__(self, context: Context, planner: JobPlanner) -> None:
        self._context = context
        self._planner = planner

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        context, name, tags = self._context, request["TrainingJobName"], tags_in(request)
        arn = context.arns.of(TRAINING_JOB, name)
        with context.db.read() as connection:
            if rows.get_job(connection, arn) is not None:
                raise _taken(arn)
        spec = self._planner.plan(request)
        try:
            with context.db.write() as connection:
                add_job(context, connection, request, spec, tags)
        except IntegrityError as error:
            raise _taken(arn) from error
        context.changed()
        return {"TrainingJobArn": arn}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.read() as connection:
            job = self._find(connection, request["TrainingJobName"])
        return describe(job, self._context.now())

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with bad_token_refused(), self._context.db.read() as connection:
            jobs, token = rows.page_jobs(connection, JobKind.TRAINING, list_filter(request))
        return with_token({"TrainingJobSummaries": [summary(job) for job in jobs]}, token)

    def stop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        context = self._context
        with context.db.write() as connection:
            job = self._find(connection, request["TrainingJobName"], for_update=True)
            if job.status.ended:
                raise ValidationException(
                    f"The request was rejected because the training job is in status {job.status}."
                )
            if job.status is JobStatus.STOPPING:
                return {}
            ask_to_stop(context, connection, job)
        context.changed()
        return {}

    def update(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What may change while a job runs is kept with it and shown; nothing here acts on it but
        the time that a warm pool is kept."""
        context = self._context
        with context.db.write() as connection:
            job = self._find(connection, request["TrainingJobName"], for_update=True)
            changed = {name: request[name] for name in _UPDATED if name in request}
            if "ResourceConfig" in request:
                changed["ResourceConfig"] = {
                    **job.request["ResourceConfig"],
                    **request["ResourceConfig"],
                }
            rows.change_job(
                connection,
                job.arn,
                request={**job.request, **changed},
                modified_at=context.now(),
            )
        return {"TrainingJobArn": job.arn}

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Its artifacts and its log stay."""
        context = self._context
        with context.db.write() as connection:
            job = self._find(connection, request["TrainingJobName"], for_update=True)
            if not job.status.ended:
                raise ResourceInUse(
                    f"Training job {job.name!r} is {job.status}.", hint="Stop it first."
                )
            rows.delete_job(connection, job.arn)
            journal.remove_all_tags(connection, job.arn)
            context.event(connection, job.arn, "Deleted")
        return {}

    def _find(self, connection: Connection, name: str, *, for_update: bool = False) -> JobRecord:
        arn = self._context.arns.of(TRAINING_JOB, name)
        job = rows.get_job(connection, arn, for_update=for_update)
        if job is None:
            raise ValidationException(
                "Requested resource not found.", hint=f"There is no training job {name!r}."
            )
        return job


def add_job(
    context: Context,
    connection: Connection,
    request: Mapping[str, Any],
    spec: JobSpec,
    tags: Mapping[str, str],
) -> JobRecord:
    """The row of a new job, with its tags. Raises sqlalchemy's IntegrityError if its name is
    taken."""
    now, name = context.now(), request["TrainingJobName"]
    job = JobRecord(
        arn=context.arns.of(TRAINING_JOB, name),
        name=name,
        kind=JobKind.TRAINING,
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
        moments=(Moment("Starting", now, "Starting the training job"),),
        settled=1,
    )
    warning = {WARNING_TAG: spec.warning[:256]} if spec.warning else {}
    rows.add_job(connection, job)
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


def _taken(arn: str) -> ResourceInUse:
    return ResourceInUse(
        "Training job names must be unique within an AWS account and region, and a training job "
        f"with this name already exists ({arn})."
    )
