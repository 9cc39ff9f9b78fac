"""Training jobs: what their verbs have beyond those of all jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ridgeline_service.control.context import Context
from ridgeline_service.control.jobs.checking import check_remote_debugging
from ridgeline_service.control.jobs.describing import describe, summary
from ridgeline_service.control.jobs.planning import JobPlanner
from ridgeline_service.control.jobs.verbs import JobVerbs
from ridgeline_service.control.jobs.warm_pools import (
    KEEP_ALIVE,
    change_keep_alive,
    keep_alive_s,
    shown_pool,
)
from ridgeline_service.control.listing import bad_token_refused, list_filter, with_token
from ridgeline_service.errors import ResourceInUse
from ridgeline_service.store import jobs as rows
from ridgeline_service.store import warm_pools
from ridgeline_service.store.job_records import JobKind, JobRecord, JobSpec
from ridgeline_service.store.tuning_jobs import tuning_of_job
from ridgeline_service.store.warm_pools import PoolRecord, PoolStatus

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
            pool = warm_pools.get_pool(connection, job.arn)
        shown = self.shown(job, self._context.now())
        if tuning is not None:
            shown["TuningJobArn"] = tuning
        return self._with_pool(shown, pool)

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        wanted = request.get("WarmPoolStatusEquals")
        conditions = [] if wanted is None else [warm_pools.has_pool(PoolStatus(wanted))]
        with bad_token_refused(), self._context.db.read() as connection:
            order = list_filter(request, self.default_order)
            jobs, token = rows.page_jobs(connection, self.kind, order, *conditions)
            pools = warm_pools.pools_of(connection, [job.arn for job in jobs])
        shown = [self._with_pool(self.summary(job), pools.get(job.arn)) for job in jobs]
        return with_token({"TrainingJobSummaries": shown}, token)

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._context.db.write() as connection:
            job = self.find(connection, request)
            pool = warm_pools.get_pool(connection, job.arn)
            if pool is not None and pool.status is PoolStatus.AVAILABLE:
                raise ResourceInUse(
                    f"Training job {job.name!r} has a warm pool that is Available.",
                    hint=f"End it by setting {KEEP_ALIVE} to 0 with UpdateTrainingJob.",
                )
        return super().delete(request)

    def _with_pool(self, shown: dict[str, Any], pool: PoolRecord | None) -> dict[str, Any]:
        if pool is None:
            return shown
        return {**shown, "WarmPoolStatus": shown_pool(pool, self._context.now())}

    def update(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What may change while a job runs is kept with it and shown; nothing here acts on it but
        the time that its warm pool is kept."""
        check_remote_debugging(request)
        context = self._context
        with context.db.write() as connection:
            job = self.find(connection, request, for_update=True)
            changed = {name: request[name] for name in _UPDATED if name in request}
            if "ResourceConfig" in request:
                changed["ResourceConfig"] = {
                    **job.request["ResourceConfig"],
                    **request["ResourceConfig"],
                }
                if KEEP_ALIVE in request["ResourceConfig"]:
                    job = replace(job, request={**job.request, **changed})
                    change_keep_alive(connection, job, keep_alive_s(job.request))
            rows.change_job(
                connection,
                job.arn,
                request={**job.request, **changed},
                modified_at=context.now(),
            )
        context.changed()
        return {"TrainingJobArn": job.arn}

    def not_found(self, name: str) -> str:
        return "Requested resource not found."
