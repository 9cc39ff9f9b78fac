"""The queue of jobs of all kinds: whose turn it is, and what the others wait for.

Jobs get room in the order in which they came. One that does not fit lets later ones pass that do,
so that no room lies idle; once it has waited for ``PASSED_FOR_S``, what becomes free is kept for
it, unless endpoints run beside which it would never fit. What may run at once is known to
admission; what endpoints take is theirs, also of the room that is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ridgeline_service.control.admitting import current_load, served_load
from ridgeline_service.control.context import Context
from ridgeline_service.placement.admission import Load, Room, admit
from ridgeline_service.store import jobs as rows
from ridgeline_service.store.job_records import JobPhase, JobRecord, Moment
from ridgeline_service.store.states import Desired

PASSED_FOR_S = 300

_HAS_WAITED = f"has waited for more than {PASSED_FOR_S // 60} minutes"
_KEPT = f"It {_HAS_WAITED}: room is kept for it."
_NO_ROOM_BESIDE_ENDPOINTS = (
    "It does not fit beside the endpoints that run, so jobs that came later pass it: delete or "
    "scale down an endpoint, or ask for less."
)


class JobQueue:
    """Decides which jobs are looked at; those that only wait are told what for and left alone."""

    def __init__(self, context: Context, room: Room) -> None:
        self._context = context
        self._room = room

    def due(self, jobs: Sequence[JobRecord]) -> list[JobRecord]:
        """Of living jobs, oldest first, those that have something to do now: all but those that
        wait for room, unless they have waited for as long as they may."""
        waiting = [job for job in jobs if _waits(job)]
        due = [job for job in jobs if not _waits(job)]
        if not waiting:
            return due
        now = self._context.now()
        with self._context.db.read() as connection:
            load = current_load(connection, with_pools=False)  # they make way
            served = served_load(connection)
        untold = []
        for job, reason in turns(waiting, load, served, self._room, now):
            if not reason or has_waited_too_long(job, now):
                due.append(job)
            elif job.moments[-1].message != reason:
                untold.append(replace(job, moments=_with_wait(job.moments, now, reason)))
        self._tell(untold)
        return due

    def _tell(self, jobs: Sequence[JobRecord]) -> None:
        if not jobs:
            return
        with self._context.db.write() as connection:
            for job in jobs:
                reason = job.moments[-1].message
                if rows.tell_wait(connection, job):
                    self._context.event(connection, job.arn, "Waiting", message=reason)


def turns(
    waiting: Sequence[JobRecord], load: Load, served: Load, room: Room, now: int
) -> Iterator[tuple[JobRecord, str]]:
    """Every job that waits, oldest first, with what it waits for: nothing if it may start now,
    together with those before it that may. ``served`` is the part of ``load`` that does not end by
    itself; ``now`` in microseconds since the epoch."""
    kept_for: JobRecord | None = None
    for job in waiting:
        if kept_for is not None:
            yield job, _behind(kept_for)
            continue
        count, memory = job.spec.instance_count, job.spec.instance_count * job.spec.memory_bytes
        wait = admit(memory, load, room, count)
        if wait is None:
            load = Load(load.instances + count, load.memory_bytes + memory)
            yield job, ""
        elif admit(memory, served, room, count) is not None:
            yield job, f"{wait.message} {_NO_ROOM_BESIDE_ENDPOINTS}"
        elif now - job.queued_at >= PASSED_FOR_S * 1e6:
            kept_for = job
            yield job, f"{wait.message} {_KEPT}"
        else:
            yield job, wait.message


def has_waited_too_long(job: JobRecord, now: int) -> bool:
    """Whether its MaxWaitTimeInSeconds is over."""
    waited_s = (now - job.created_at) / 1e6
    return job.spec.max_wait_s is not None and waited_s > job.spec.max_wait_s


def _waits(job: JobRecord) -> bool:
    return job.phase is JobPhase.QUEUED and job.desired is Desired.RUNNING


def _behind(job: JobRecord) -> str:
    return (
        f"Waiting behind {job.kind.words} {job.name!r}, which came before and {_HAS_WAITED}: room "
        "is kept for it."
    )


def _with_wait(moments: Sequence[Moment], now: int, reason: str) -> tuple[Moment, ...]:
    """A wait whose reason changes is one wait."""
    before = moments[:-1] if moments[-1].status == "Pending" else moments
    return (*before, Moment("Pending", now, reason))
