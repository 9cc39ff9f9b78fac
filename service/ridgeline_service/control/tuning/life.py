"""The life of one tuning job, step by step: its trials looked at, stopped, started, and the end.

A training job and the trial that it is are written in one transaction, under the claim; so each
trial is started exactly once, whenever the control plane is killed.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ridgeline.errors import RidgelineError
from ridgeline_service.control.context import Context
from ridgeline_service.control.jobs.planning import JobPlanner
from ridgeline_service.control.jobs.verbs import add_job, ask_to_stop
from ridgeline_service.control.tuning.decisions import Decision, Finish, decide, ending_of
from ridgeline_service.control.tuning.search import Point, PointState, next_point
from ridgeline_service.control.tuning.spec import Definition, TuningSpec, spec_of
from ridgeline_service.control.tuning.trials import refreshed, training_request, trial_name
from ridgeline_service.endings import sentences, shortened
from ridgeline_service.store import jobs as job_rows
from ridgeline_service.store import tuning_jobs as rows
from ridgeline_service.store.job_records import JobKind, JobStatus
from ridgeline_service.store.tuning_records import TrialRecord, TuningRecord
from ridgeline_service.telemetry.samples import Metric, SampleStore
from ridgeline_service.training.watching import NAMESPACE

MOST_STEPS = 2_000
"""Values of a curve that are kept."""

_REASON_LENGTH = 1024
_POLL_S = 0.3

log = logging.getLogger(__name__)


class TuningLife:
    """Steps of tuning jobs claimed by ``holder``. Thread-safe: one step a tuning job at a time."""

    def __init__(
        self, context: Context, *, holder: str, planner: JobPlanner, samples: SampleStore
    ) -> None:
        self._context = context
        self._holder = holder
        self._planner = planner
        self._samples = samples

    def step(self, tuning: TuningRecord) -> float | None:
        """Do what is due. Returns after how many seconds to look again; None at the end."""
        spec = spec_of(tuning.request)
        before, trials = self._look(tuning, spec)
        decision = decide(tuning, spec, trials, self._context.now())
        if not self._write(tuning, spec, before, trials, decision):
            return None
        for _ in range(decision.launch):
            trial = self._launch(tuning, spec, trials)
            if trial is None:
                return _POLL_S
            trials = [*trials, trial]
        return None if decision.over else _POLL_S

    def _look(
        self, tuning: TuningRecord, spec: TuningSpec
    ) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """The trials as they are kept, and as they are now."""
        with self._context.db.read() as connection:
            kept = rows.trials_of(connection, tuning.arn)
            jobs = {
                trial.number: job_rows.get_job(connection, trial.arn)
                for trial in kept
                if not trial.status.ended
            }
        now = self._context.now()
        found = []
        for trial in kept:
            if trial.number in jobs:
                trial = refreshed(trial, jobs[trial.number], spec, now)
                trial = replace(trial, curve=self._curve(trial, spec))
            found.append(trial)
        return kept, found

    def _curve(self, trial: TrialRecord, spec: TuningSpec) -> tuple[float, ...]:
        """All values of the objective so far, where something is decided by them."""
        if not spec.stops_early and spec.hyperband is None:
            return ()
        metric = spec.named(trial.definition).objective.metric
        series = Metric(NAMESPACE, metric, (("TrainingJobName", trial.name),))
        begin, end = trial.created_at / 1e6 - 1, self._context.clock() + 1
        try:
            buckets = self._samples.read(series, start=begin, end=end, period=1e-6)
        except sqlite3.Error as error:
            log.warning("the values of %s could not be read: %s", trial.name, error)
            return trial.curve
        values = [total for bucket in buckets for _, total, _, _ in bucket.samples]
        return tuple(values[:MOST_STEPS])

    def _write(
        self,
        tuning: TuningRecord,
        spec: TuningSpec,
        before: Sequence[TrialRecord],
        trials: Sequence[TrialRecord],
        decision: Decision,
    ) -> bool:
        """One transaction. Returns whether the claim was still held, else nothing was written."""
        changed = [new for old, new in zip(before, trials, strict=True) if new != old]
        finish = decision.finish
        found = finish is not None and tuning.cause != finish
        if not (changed or decision.stop or decision.over or found):
            return True
        context = self._context
        with context.db.write() as connection:
            now = context.now()
            if not rows.change_tuning(connection, tuning.arn, token=self._holder, modified_at=now):
                return False
            for trial in changed:
                rows.put_trial(connection, trial)
            for trial in decision.stop:
                self._stop(connection, trial)
            if finish is not None:
                rows.change_tuning(connection, tuning.arn, cause=finish)
                if decision.over:
                    self._end(connection, tuning, spec, finish, trials)
        if decision.stop or decision.over:
            context.changed()
        return True

    def _stop(self, connection: Connection, trial: TrialRecord) -> None:
        job = job_rows.get_job(connection, trial.arn, for_update=True)
        if job is not None and job.status is JobStatus.IN_PROGRESS:
            ask_to_stop(self._context, connection, job)
            rows.put_trial(connection, replace(trial, status=JobStatus.STOPPING))

    def _end(
        self,
        connection: Connection,
        tuning: TuningRecord,
        spec: TuningSpec,
        finish: Finish,
        trials: Sequence[TrialRecord],
    ) -> None:
        ending, now = ending_of(finish, tuning, spec, trials), self._context.now()
        rows.change_tuning(
            connection,
            tuning.arn,
            status=ending.status,
            failure_reason=shortened(ending.reason, _REASON_LENGTH),
            ended_at=now,
            modified_at=now,
        )
        self._context.event(connection, tuning.arn, ending.status, finish, ending.reason)

    def _launch(
        self, tuning: TuningRecord, spec: TuningSpec, trials: Sequence[TrialRecord]
    ) -> TrialRecord | None:
        """Start the next trial; None if it could not be."""
        context, number = self._context, len(trials) + 1
        definition = spec.definition(number)
        points = points_of(definition, [*tuning.history, *trials])
        parameters = next_point(spec, definition, points, spec.index(number), tuning.seed)
        name = trial_name(tuning.name, number, context.ids())
        request = training_request(definition, name, parameters)
        try:
            job_spec = self._planner.plan(request)
        except RidgelineError as error:
            self._give_up(tuning, sentences(error.message, error.hint))
            return None
        now = context.now()
        trial = TrialRecord(
            tuning_arn=tuning.arn,
            number=number,
            arn=context.arns.of(JobKind.TRAINING, name),
            name=name,
            definition=definition.name,
            parameters=parameters,
            created_at=now,
            modified_at=now,
        )
        try:
            with context.db.write() as connection:
                if not rows.change_tuning(
                    connection, tuning.arn, token=self._holder, modified_at=now
                ):
                    return None
                rows.add_trial(connection, trial)
                add_job(context, connection, request, job_spec, tuning.tags)
                context.event(connection, tuning.arn, "TrialStarted", message=name)
        except IntegrityError:
            return None  # a training job of this name is there: the next look draws another name
        context.changed()
        return trial

    def _give_up(self, tuning: TuningRecord, reason: str) -> None:
        with self._context.db.write() as connection:
            rows.change_tuning(
                connection,
                tuning.arn,
                token=self._holder,
                cause=Finish.LAUNCH_FAILED,
                failure_reason=reason,
            )
        self._context.changed()


def points_of(definition: Definition, trials: Sequence[TrialRecord]) -> list[Point]:
    """What the search knows of the trials of one definition."""
    return [_point(trial) for trial in trials if trial.definition == definition.name]


def _point(trial: TrialRecord) -> Point:
    parameters = trial.parameters
    if not trial.status.ended:
        return Point(parameters, "running")
    if trial.objective is None or trial.status is JobStatus.FAILED:
        return Point(parameters, "failed")
    stopped = trial.status is JobStatus.STOPPED
    state: PointState = "stopped" if stopped else "completed"
    return Point(parameters, state, trial.objective, len(trial.curve))
