"""Training jobs: what their verbs have beyond those of all jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ridgeline_service.control.context import Context
from ridgeline_service.control.job_describing import describe, summary
from ridgeline_service.control.job_planning import JobPlanner
from ridgeline_service.control.job_verbs import JobVerbs
from ridgeline_service.store import jobs as rows
from ridgeline_service.store.job_records import JobKind, JobRecord, JobSpec
from ridgeline_service.store.tuning_jobs import tuning_of_job

_UPDATED = ("ProfilerConfig", "ProfilerRuleConfigurations", "RemoteDebugConfig")


class TrainingJobs(JobVerbs):
    """The training job verbs of the SageMaker API."""

    kind = JobKind.TRAINING

    def __init__(self, context: Context, planner: JobPlanner) -> None:
        super().__init__(context)
        self._planner = planner

    def plan(self, request: Mapping[str, Any]) -> JobSpec:
        return self._planner.plan(request)

    def shown(self, job: JobRecord, now: int) -> dict[str, Any]:
        return describe(job, now)

    def summary(self, job: JobRecord) -> dict[str, Any]:
        return summary(job)

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.read() as connection:
            job = self.find(connection, request)
            tuning = tuning_of_job(connection, job.arn)
        shown = self.shown(job, self._context.now())
        return shown if tuning is None else {**shown, "TuningJobArn": tuning}

    def update(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What may change while a job runs is kept with it and shown; nothing here acts on it but
        the time that a warm pool is kept."""
        context = self._context
        with context.db.write() as connection:
            job = self.find(connection, request, for_update=True)
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

    def not_found(self, name: str) -> str:
        return "Requested resource not found."
