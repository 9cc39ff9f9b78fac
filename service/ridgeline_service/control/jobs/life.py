"""The life of one job of any kind: room, runners, their reports, the end or a new start.

A step looks at the row, at the runners' processes and at what they reported, does what is due, and
says when to look again. Between two steps nothing of a job is in memory, so that a killed control
plane loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ridgeline.errors import RidgelineError
from ridgeline_service.control.admitting import place
from ridgeline_service.control.context import Context
from ridgeline_service.control.jobs.ending import (
    Ended,
    Verdict,
    billed_us,
    end_of,
    ended_changes,
    may_restart,
    restart_changes,
    verdict_of,
)
from ridgeline_service.control.jobs.inputs import JobInputs, cause_of, no_report
from ridgeline_service.control.jobs.orders import hosts_of, runner_spec
from ridgeline_service.control.jobs.queue import has_waited_too_long
from ridgeline_service.control.jobs.surroundings import Surroundings
from ridgeline_service.control.jobs.warm_pools import kind_of
from ridgeline_service.control.jobs.work import remove_work
from ridgeline_service.control.staging import Staged, Stager, StagingCancelled, StagingFailed
from ridgeline_service.endings import sentences
from ridgeline_service.placement.admission import Room
from ridgeline_service.placement.gpus import GpuShares
from ridgeline_service.placement.profiles import gpus_of
from ridgeline_service.runtime.keeper import ProcessRecord
from ridgeline_service.store import jobs as rows
from ridgeline_service.store.job_records import (
    Instance,
    JobPhase,
    JobRecord,
    Metric,
    Moment,
)
from ridgeline_service.store.jobs import JobChanges
from ridgeline_service.store.states import Desired
from ridgeline_service.store.warm_pools import PoolRecord, is_coming, take_pool
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.failing import failure_reason
from ridgeline_service.training.report import Report
from ridgeline_service.training.runners import Runners

HUNG_AFTER_END_S = 30.0
HUNG_AFTER_STOP_S = 60.0
"""Beyond what the script gets between SIGTERM and SIGKILL."""

_QUEUED_POLL_S = 0.5
_POOL_POLL_S = 0.1
_FRESH_POLL_S = 0.1
_POLL_S = 2.0
_UNTOLD_POLL_S = 0.5
_POLL_SHARE = 0.05


@dataclass(frozen=True)
class Seen:
    """One instance as it is now."""

    instance: Instance
    record: ProcessRecord | None
    alive: bool
    report: Report | None

    @property
    def died(self) -> bool:
        """It is gone and has not said how it ended."""
        return not self.alive and (self.report is None or self.report.ending is None)

    @property
    def uploads(self) -> bool:
        """Its script has ended, and what that made is brought away, for as long as it takes."""
        return self.report is not None and self.report.training_ended_at is not None


class JobLife:
    """Steps of jobs claimed by ``holder``. Thread-safe: one step a job at a time."""

    def __init__(
        self,
        context: Context,
        *,
        holder: str,
        boot: str,
        runners: Runners,
        inputs: JobInputs,
        stager: Stager,
        room: Room,
        around: Surroundings,
        gpus: GpuShares,
        tokens: Callable[[], str],
        changed: Callable[[], None],
        hurry: Callable[[str], None],
    ) -> None:
        """``hurry`` has the job of that ARN looked at now."""
        self._context = context
        self._holder = holder
        self._boot = boot
        self._runners = runners
        self._inputs = inputs
        self._stager = stager
        self._room = room
        self._around = around
        self._gpus = gpus
        self._tokens = tokens
        self._changed = changed
        self._hurry = hurry

    def step(self, job: JobRecord) -> float | None:
        """Do what is due. Returns after how many seconds to look again; None at the end."""
        if job.phase is JobPhase.QUEUED:
            if job.desired is Desired.STOPPED:
                return self._end(job, Verdict(Cause.STOP_REQUESTED))
            return self._admit(job)
        if job.phase is JobPhase.LAUNCHING:
            return self._launch(job)
        if job.phase is JobPhase.RUNNING:
            return self._watch(job)
        return None

    def _admit(self, job: JobRecord) -> float | None:
        now, spec = self._context.now(), job.spec
        if has_waited_too_long(job, now):
            return self._end(job, Verdict(Cause.MAX_WAIT))
        with self._context.db.write() as connection:
            memory = spec.instance_count * spec.memory_bytes
            kind = kind_of(job)
            pool = take_pool(connection, kind, job.name, now)
            if pool is None and is_coming(connection, kind):
                return _POOL_POLL_S  # a runner of its own would be ready no sooner
            if pool is None and place(connection, self._room, memory, spec.instance_count):
                return _QUEUED_POLL_S  # something else has started since it was its turn
            moments = (*job.moments, Moment("Starting", now, _PREPARING))
            rows.change_job(
                connection,
                job.arn,
                token=self._holder,
                phase=JobPhase.LAUNCHING,
                moments=moments,
                settled=len(moments),
                modified_at=now,
                boot=self._boot,
                instances=self._instances(job, pool),
            )
        self._changed()  # whoever is next in the queue
        return 0.0

    def _instances(self, job: JobRecord, pool: PoolRecord | None) -> tuple[Instance, ...]:
        """Named before they are started, so that they are known whatever happens then; those of a
        warm pool run already, and wait for their orders."""
        stamp = int(self._context.clock())
        if pool is not None:
            return tuple(
                replace(each, log_stream=f"{job.name}/{each.host}-{stamp}")
                for each in pool.instances
            )
        return tuple(
            Instance(
                id=f"{job.id}-{job.attempt}-{host}",
                token=self._tokens(),
                host=host,
                log_stream=f"{job.name}/{host}-{stamp}",
            )
            for host in hosts_of(job.spec.instance_count)
        )

    def _launch(self, job: JobRecord) -> float | None:
        if job.desired is Desired.STOPPED:
            self._kill_all(self._look(job))
            return self._end(job, Verdict(Cause.STOP_REQUESTED))
        try:
            self._inputs.provide(job.request, lambda: self._stop_asked(job))
            staged = self._stage_model(job)
        except StagingCancelled:
            return 0.0
        except JobFailed as error:
            return self._end(job, Verdict(error.cause, failure_reason(error)))
        known = {record.id: record for record in self._runners.records()}
        started = []
        try:
            for instance in job.instances:
                # It runs already if the control plane was killed between its start and the row.
                record = known.get(instance.id)
                if record is None or self._runners.waits(instance.id):
                    record = self._start(job, instance, staged, record)
                started.append(replace(instance, pid=record.pid, start_time=record.start_time))
        except RidgelineError as error:
            self._kill_all(self._look(job))
            failed = JobFailed(Cause.LAUNCH_FAILED, sentences(error.message, error.hint))
            return self._end(job, Verdict(failed.cause, failure_reason(failed)))
        running = tuple(started)
        held = self._change(job, phase=JobPhase.RUNNING, instances=running, boot=self._boot)
        return _FRESH_POLL_S if held else None

    def _stop_asked(self, job: JobRecord) -> bool:
        with self._context.db.read() as connection:
            found = rows.get_job(connection, job.arn)
        return found is None or found.desired is Desired.STOPPED

    def _stage_model(self, job: JobRecord) -> Staged | None:
        """The model that a transform job asks, as endpoints have it. Raises JobFailed."""
        if job.spec.model is None:
            return None
        try:
            return self._stager.stage(job.spec.model, no_report, lambda: self._stop_asked(job))
        except StagingFailed as error:
            words = f"{error.reason.words} {error.message}"
            raise JobFailed(cause_of(error.reason), words, error.log) from error

    def _start(
        self,
        job: JobRecord,
        instance: Instance,
        staged: Staged | None,
        waiting: ProcessRecord | None,
    ) -> ProcessRecord:
        gpus = self._gpus.take(instance.id, gpus_of(job.spec.instance_type))
        with self._context.db.read() as connection:
            instances, _ = rows.admitted_load(connection)
        spec = runner_spec(job, instance, self._around, gpus, staged, alone=instances == 1)
        if waiting is not None:
            self._runners.employ(spec)
            return waiting
        self._runners.remove(instance.id)
        return self._runners.start(spec)

    def _watch(self, job: JobRecord) -> float | None:
        seen = self._look(job)
        if job.desired is Desired.STOPPED:
            for each in seen:
                if each.alive and each.record is not None:
                    self._runners.ask_to_stop(each.record, Cause.STOP_REQUESTED)
        if any(each.died or _failed(each) for each in seen):
            # The others wait for it for ever.
            self._kill_all(seen)
            seen = self._look(job)
        self._kill_hung(job, seen)
        changes = self._news(job, seen)
        if any(each.alive for each in seen):
            if changes:
                self._change(job, **changes)
            # What is new of a young job shows at once; an older one is not slowed by being looked
            # at, and its end is told.
            age_s = (self._context.now() - job.moments[job.settled - 1].at) / 1e6
            most = _POLL_S if self._ends_are_told(job, seen) else _UNTOLD_POLL_S
            return min(most, max(_FRESH_POLL_S, age_s * _POLL_SHARE))
        told = replace(job, **changes)
        ended = [self._ended(each, job) for each in seen]
        verdict = verdict_of(ended)
        if may_restart(told, verdict.cause, ended):
            return self._restart(told, verdict, ended)
        return self._end(told, verdict)

    def _ends_are_told(self, job: JobRecord, seen: Sequence[Seen]) -> bool:
        look = partial(self._hurry, job.arn)
        living = [each.record for each in seen if each.alive and each.record is not None]
        told = [self._runners.tell_end(record, look) for record in living]
        return all(told)

    def _ended(self, seen: Seen, job: JobRecord) -> Ended:
        interrupted = self._runners.was_interrupted(seen.instance.id) or job.boot != self._boot
        return Ended(seen.report, self._runners.exit_status(seen.instance.id), interrupted)

    def _look(self, job: JobRecord) -> list[Seen]:
        found = []
        for instance in job.instances:
            record = self._record(instance)
            alive = record is not None and self._runners.alive(record)
            # The report is read after the process: what a dead one said cannot be missed.
            found.append(Seen(instance, record, alive, self._runners.report(instance.id)))
        return found

    def _record(self, instance: Instance) -> ProcessRecord | None:
        if instance.pid is None or instance.start_time is None:
            return next((r for r in self._runners.records() if r.id == instance.id), None)
        return ProcessRecord(instance.id, instance.pid, instance.start_time, instance.token)

    def _news(self, job: JobRecord, seen: Sequence[Seen]) -> JobChanges:
        """What the first instance reported beyond the row."""
        report = seen[0].report if seen else None
        if report is None:
            return JobChanges()
        told = tuple(Moment(each.status, each.at, each.message) for each in report.transitions)
        moments = (*job.moments[: job.settled], *told)
        metrics = tuple(Metric(each.name, each.value, each.at) for each in report.metrics)
        changes = JobChanges()
        if moments != job.moments:
            changes["moments"] = moments
        if metrics and metrics != job.metrics:
            changes["metrics"] = metrics
        if report.artifacts != job.artifacts and report.artifacts:
            changes["artifacts"] = report.artifacts
        if report.exit_message != job.exit_message:
            changes["exit_message"] = report.exit_message
        if job.started_at is None and report.training_started_at is not None:
            changes["started_at"] = report.training_started_at
        if changes:
            changes["modified_at"] = self._context.now()
        return changes

    def _kill_all(self, seen: Sequence[Seen]) -> None:
        for each in seen:
            if each.alive and each.record is not None:
                self._runners.kill(each.record)

    def _kill_hung(self, job: JobRecord, seen: Sequence[Seen]) -> None:
        """Those that do not end: one that said how it ended and is still there after a while, and
        one that was told to stop and since then has neither said anything nor ended the script."""
        now = self._context.now()
        patience_us = (self._around.settings.job_stop_grace_s + HUNG_AFTER_STOP_S) * 1e6
        ignored = job.desired is Desired.STOPPED and now - job.modified_at > patience_us
        for each in seen:
            if not each.alive or each.record is None:
                continue
            ending = each.report.ending if each.report is not None else None
            if ending is not None:
                hung = now - ending.at > HUNG_AFTER_END_S * 1e6
            else:
                hung = ignored and not each.uploads
            if hung:
                self._runners.kill(each.record)

    def _restart(self, job: JobRecord, verdict: Verdict, ended: Sequence[Ended]) -> float | None:
        now = self._context.now()
        changes = restart_changes(job, verdict, now, billed_us(job, end_of(job, ended, now)))
        if self._change(job, **changes):
            self._forget(job)
        return 0.0

    def _end(self, job: JobRecord, verdict: Verdict) -> float | None:
        now = self._context.now()
        changes = ended_changes(job, verdict, now, billed_us(job, now))
        if self._change(job, **changes):
            self._forget(job)
            remove_work(self._context.data_dir, job.id)
        return None

    def _forget(self, job: JobRecord) -> None:
        for instance in job.instances:
            self._gpus.give_back(instance.id)
            self._runners.remove(instance.id)

    def _change(self, job: JobRecord, **changes: object) -> bool:
        """One transaction. Returns whether the claim was still held, else nothing was written."""
        values = JobChanges(**changes)  # type: ignore[typeddict-item]
        with self._context.db.write() as connection:
            held = rows.change_job(connection, job.arn, token=self._holder, **values)
            moments = values.get("moments", job.moments)
            if held:
                for moment in moments[len(job.moments) :]:
                    self._context.event(
                        connection,
                        job.arn,
                        moment.status,
                        values.get("cause", ""),
                        values.get("failure_reason", "") or moment.message,
                    )
        if held and ("phase" in values or "moments" in values):
            self._changed()
        return held


_PREPARING = "Preparing the instances"


def _failed(seen: Seen) -> bool:
    ending = seen.report.ending if seen.report is not None else None
    return ending is not None and ending.outcome == "failed"
