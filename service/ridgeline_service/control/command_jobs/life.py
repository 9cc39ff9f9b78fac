"""The life of one such job: its command runs, and what it gave or why it failed is written down.

A killed control plane leaves nothing behind but the row: the next one runs the command again, which
writes the same to the same place. It is run again after a database was away, too; a bug ends the
job. As many jobs run at once as there are cores, the oldest first: each computes all the time.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from ridgeline_service.control.context import Context
from ridgeline_service.endings import shortened, storable
from ridgeline_service.store import command_jobs as rows
from ridgeline_service.store.command_jobs import CommandJob, CommandKind
from ridgeline_service.store.outage import is_database_away
from ridgeline_service.store.states import Desired

DEFAULT_MAX_RUNTIME_S = 900

_RUNNING = {CommandKind.COMPILATION: "INPROGRESS", CommandKind.RECOMMENDATIONS: "IN_PROGRESS"}
_LOOK_S = 0.5
_ROOM_S = 1.0
_BUG = 200
"""Characters of what a bug says of itself."""

log = logging.getLogger(__name__)


class CommandFailed(Exception):
    """The command cannot do what was asked; the words are for the job's user. ``result``: what is
    to be shown of the job nevertheless."""

    def __init__(self, words: str, result: Mapping[str, Any] | None = None) -> None:
        super().__init__(words)
        self.result = result


class CommandCancelled(Exception):
    """Nobody waits for it any longer."""


Cancelled = Callable[[], bool]
Work = Callable[[CommandJob, Cancelled], Mapping[str, Any]]
"""Does what a job asks for, and gives its result. Raises CommandFailed and CommandCancelled."""


def checking(cancelled: Cancelled) -> Callable[[], None]:
    """What raises CommandCancelled once nobody waits."""

    def check() -> None:
        if cancelled():
            raise CommandCancelled

    return check


class CommandLife:
    """Steps of jobs claimed by ``holder``, ``at_once`` of which run: as many as there are cores
    unless told. Thread-safe: one step a job at a time."""

    def __init__(
        self,
        context: Context,
        *,
        holder: str,
        work: Mapping[CommandKind, Work],
        at_once: int | None = None,
    ) -> None:
        self._context = context
        self._holder = holder
        self._work = work
        self._at_once = at_once or len(os.sched_getaffinity(0))

    def step(self, job: CommandJob) -> float | None:
        """Do all of it. Returns None, as at the end; in how many seconds to look again while others
        run. Raises OperationalError while the database is away."""
        if job.desired is Desired.STOPPED:
            self._end(job, "STOPPED")
            return None
        if not self._has_room(job):
            return _ROOM_S
        context, now = self._context, self._context.now()
        begun = job.started_at or now
        with context.db.write() as connection:
            held = rows.change_command_job(
                connection,
                job.arn,
                token=self._holder,
                status=_RUNNING[job.kind],
                started_at=begun,
                modified_at=now,
            )
        if held:
            self._run(job, begun)
        return None

    def _has_room(self, job: CommandJob) -> bool:
        """Whether it is among the oldest that live."""
        with self._context.db.read() as connection:
            return job.arn in rows.oldest_command_jobs(connection, self._at_once)

    def _run(self, job: CommandJob, begun: int) -> None:
        """To its end, whichever that is."""
        stopping = job.request.get("StoppingCondition") or {}
        limit_s = stopping.get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_S)
        watch = _Watch(self._stop_asked, job, begun + int(limit_s * 1e6), self._context.now)
        status, reason, result = self._outcome(job, watch, limit_s)
        try:
            self._end(job, status, reason, result)
        except Exception as error:  # what cannot be kept must not begin the job again either
            if is_database_away(error):
                raise  # the step is done again once it is back
            log.exception("what %s gave cannot be kept", job.arn)
            self._end(job, "FAILED", "InternalServerError: What the job gave cannot be kept.")

    def _outcome(
        self, job: CommandJob, watch: _Watch, limit_s: float
    ) -> tuple[str, str, Mapping[str, Any] | None]:
        """Status, reason and result of its work."""
        too_long = f"The job ran longer than {limit_s} seconds."
        try:
            result = None if watch.late else self._work[job.kind](job, watch)
        except CommandCancelled:
            return ("FAILED", too_long, None) if watch.late else ("STOPPED", "", None)
        except CommandFailed as error:
            return "FAILED", str(error), error.result
        except Exception as error:  # a bug must not begin the job again and again
            if is_database_away(error):
                raise
            log.exception("%s ended by a bug", job.arn)
            said = shortened(" ".join(f"{type(error).__name__}: {error}".split()), _BUG)
            return "FAILED", f"InternalServerError: {said}", None
        if result is None or watch.late:
            return "FAILED", too_long, None
        return "COMPLETED", "", result

    def _stop_asked(self, job: CommandJob) -> bool:
        with self._context.db.read() as connection:
            found = rows.get_command_job(connection, job.arn)
        return found is None or found.desired is Desired.STOPPED

    def _end(
        self,
        job: CommandJob,
        status: str,
        reason: str = "",
        result: Mapping[str, Any] | None = None,
    ) -> None:
        now, reason = self._context.now(), storable(reason)
        with self._context.db.write() as connection:
            if rows.change_command_job(
                connection,
                job.arn,
                token=self._holder,
                status=status,
                failure_reason=reason,
                result=dict(result or {}),
                modified_at=now,
                ended_at=now,
            ):
                self._context.event(connection, job.arn, status, message=reason)


class _Watch:
    """Whether to go on, asked often and looked up now and then."""

    def __init__(
        self,
        stop_asked: Callable[[CommandJob], bool],
        job: CommandJob,
        deadline: int,
        now: Callable[[], int],
    ) -> None:
        self._stop_asked = stop_asked
        self._job = job
        self._deadline = deadline
        self._now = now
        self._next_look = 0.0
        self._stopped = False

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return self._now() > self._deadline

    def __call__(self) -> bool:
        if not self._stopped and time.monotonic() >= self._next_look:
            self._stopped = self._stop_asked(self._job)
            self._next_look = time.monotonic() + _LOOK_S
        return self.late or self._stopped
