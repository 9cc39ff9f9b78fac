"""How a job ends, from how its runners ended: pure functions over a row and their reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ridgeline_service.runtime.keeper import ExitStatus
from ridgeline_service.store.job_records import (
    JobKind,
    JobPhase,
    JobRecord,
    JobStatus,
    Moment,
)
from ridgeline_service.store.jobs import JobChanges
from ridgeline_service.store.states import Desired
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.failing import failure_reason
from ridgeline_service.training.report import Ending, Report

RESTARTS_WITH_CHECKPOINTS = 100
RESTARTS_OF_PROCESSING = 3
RESTARTS_BEFORE_SCRIPT = 2

_BEGINS = "Downloading"

_STOPPED_BY_WISH = (Cause.NONE, Cause.RUNNER_DIED, Cause.INTERRUPTED)
"""How a job that was to stop may end and has stopped, as one does that uploads already: its status
has been Stopping."""

_STOPS = {
    Cause.STOP_REQUESTED: ("Stopped", "stopped"),
    Cause.MAX_RUNTIME: (
        "MaxRuntimeExceeded",
        "runtime exceeded MaxRuntimeInSeconds provided",
    ),
    Cause.MAX_WAIT: (
        "MaxWaitTimeExceeded",
        "waited for room longer than MaxWaitTimeInSeconds",
    ),
}


@dataclass(frozen=True)
class Verdict:
    """Why the attempt is over; ``reason`` is the FailureReason of one that failed."""

    cause: Cause = Cause.NONE
    reason: str = ""


@dataclass(frozen=True)
class Ended:
    """One instance that is gone: what it said last, how its process ended if its shim could tell,
    and whether the service or the machine went down under it."""

    report: Report | None
    exit: ExitStatus | None
    interrupted: bool = False

    @property
    def ending(self) -> Ending | None:
        return None if self.report is None else self.report.ending

    @property
    def uploads(self) -> bool:
        """Whether some of what it made may be in S3 already."""
        transitions = () if self.report is None else self.report.transitions
        return any(each.status == "Uploading" for each in transitions)

    @property
    def worked(self) -> bool:
        """Whether the script, or what stands for one, has come to its end."""
        return self.report is not None and self.report.training_ended_at is not None

    @property
    def at(self) -> int | None:
        """Microseconds since the epoch, as far as anybody could tell."""
        if self.ending is not None:
            return self.ending.at
        return None if self.exit is None else int(self.exit.at * 1e6)


def verdict_of(instances: Sequence[Ended]) -> Verdict:
    """Of all instances of one attempt. The failure that came first is the one that tells; those
    that were killed for its sake say nothing."""
    endings = [each.ending for each in instances if each.ending is not None]
    failed = sorted((each for each in endings if each.outcome == "failed"), key=_when)
    if failed:
        return Verdict(failed[0].cause, failed[0].message)
    silent = [each for each in instances if each.ending is None]
    if any(each.interrupted for each in silent) or any(
        each.outcome == "interrupted" for each in endings
    ):
        words = "The service was stopped, or the machine restarted, while the job ran."
        return Verdict(Cause.INTERRUPTED, _reason(Cause.INTERRUPTED, words))
    if silent:
        how = next((each.exit.words for each in silent if each.exit is not None), "is gone")
        return Verdict(Cause.RUNNER_DIED, _reason(Cause.RUNNER_DIED, f"The job runner {how}."))
    stopped = sorted((each for each in endings if each.outcome == "stopped"), key=_when)
    return Verdict(stopped[0].cause) if stopped else Verdict()


def may_restart(job: JobRecord, cause: Cause, instances: Sequence[Ended] = ()) -> bool:
    """Whether another attempt is made: what the service's own end interrupted always goes on, what
    else was not the user's fault as often as the job allows. After a failure of ours with what a
    script made, none is. A processing job is begun again while nobody can have seen anything of
    it, and a training job whose runner died while its script has not begun."""
    if job.desired is Desired.STOPPED:
        return False
    if cause is Cause.INTERRUPTED:
        return True
    if cause is Cause.NONE or not cause.retried:
        return False
    if cause is Cause.INTERNAL and any(each.worked for each in instances):
        return False  # the same work would come to the same end
    request = job.request
    if job.kind is JobKind.PROCESSING:
        outputs = (request.get("ProcessingOutputConfig") or {}).get("Outputs") or ()
        seen = any(each["S3Output"]["S3UploadMode"] == "Continuous" for each in outputs)
        seen = seen or any(each.uploads for each in instances)
        return not seen and job.attempt < RESTARTS_OF_PROCESSING
    resumes = "CheckpointConfig" in request or request.get("EnableManagedSpotTraining")
    if job.kind is JobKind.TRANSFORM:
        resumes = True  # what was answered is kept
    allowed = RESTARTS_WITH_CHECKPOINTS if resumes else 0
    if cause is Cause.RUNNER_DIED and instances and not _script_began(job, instances):
        allowed = max(allowed, RESTARTS_BEFORE_SCRIPT)
    return job.attempt < max(job.spec.retries, allowed)


def _script_began(job: JobRecord, instances: Sequence[Ended]) -> bool:
    """Whether the script of a training job has begun in this attempt. What was heard of it counts
    also where the report has been lost since."""
    reports = [each.report for each in instances if each.report is not None]
    told = [moment.status for report in reports for moment in report.transitions]
    return "Training" in (*told, *(moment.status for moment in job.moments[job.settled :]))


def billed_us(job: JobRecord, end: int) -> int:
    """Microseconds of this attempt from the moment when its instances began with the job's data to
    its end: wall-clock time, however many they were."""
    began = next((each.at for each in job.moments[job.settled :] if each.status == _BEGINS), end)
    return max(0, end - began)


def end_of(job: JobRecord, instances: Sequence[Ended], now: int) -> int:
    """When an attempt was over that the control plane may have found much later. If nobody saw the
    end, as when the machine went down, the last that was heard of the job counts."""
    known = [each.at for each in instances if each.at is not None]
    return min(now, max(known, default=job.modified_at))


def restart_changes(job: JobRecord, verdict: Verdict, now: int, billed: int) -> JobChanges:
    """Back into the queue, with what happened among the transitions."""
    moments = (
        *job.moments,
        Moment("Interrupted", now, verdict.reason.partition("\n")[0]),
        Moment("Restarting", now, f"Restarting the {job.kind.words}, attempt {job.attempt + 2}"),
    )
    return JobChanges(
        phase=JobPhase.QUEUED,
        attempt=job.attempt + 1,
        queued_at=job.queued_at,
        moments=moments,
        settled=len(moments),
        instances=(),
        started_at=job.started_at,
        billable_us=job.billable_us + billed,
        modified_at=now,
    )


def ended_changes(job: JobRecord, verdict: Verdict, now: int, billed: int) -> JobChanges:
    """The row of a job that is over."""
    cause = verdict.cause
    if job.desired is Desired.STOPPED and cause in _STOPPED_BY_WISH:
        cause = Cause.STOP_REQUESTED
    if cause is Cause.NONE:
        status, secondary, what = JobStatus.COMPLETED, "Completed", "completed"
    elif cause in _STOPS:
        status, (secondary, what) = JobStatus.STOPPED, _STOPS[cause]
    else:
        status, secondary, what = JobStatus.FAILED, "Failed", "failed"
    message = f"{job.kind.words.capitalize()} {what}"
    return JobChanges(
        status=status,
        phase=JobPhase.ENDED,
        cause=cause,
        failure_reason=_shown_reason(job, cause, verdict),
        moments=(*job.moments, Moment(secondary, now, message)),
        started_at=job.started_at,
        ended_at=now,
        billable_us=job.billable_us + billed,
        metrics=job.metrics,
        artifacts=job.artifacts,
        exit_message=job.exit_message,
        modified_at=now,
    )


def _shown_reason(job: JobRecord, cause: Cause, verdict: Verdict) -> str:
    if cause is Cause.MAX_RUNTIME and job.kind is JobKind.PROCESSING:
        # It has no secondary status that could tell this stop from one that was asked for.
        return f"{cause}: It ran longer than its MaxRuntimeInSeconds, {job.spec.max_runtime_s:.0f}."
    return verdict.reason if cause is not Cause.NONE and cause not in _STOPS else ""


def _reason(cause: Cause, words: str) -> str:
    return failure_reason(JobFailed(cause, words))


def _when(ending: Ending) -> int:
    return ending.at
