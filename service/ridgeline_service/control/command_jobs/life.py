"""The life of one such job: its command runs, and what it gave or why it failed is written down.

A killed control plane leaves nothing behind but the row: the next one runs the command again, which
writes the same to the same place.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from ridgeline_service.control.context import Context
from ridgeline_service.store import command_jobs as rows
from ridgeline_service.store.command_jobs import CommandJob, CommandKind
from ridgeline_service.store.states import Desired

DEFAULT_MAX_RUNTIME_S = 900

_RUNNING = {CommandKind.COMPILATION: "INPROGRESS", CommandKind.RECOMMENDATIONS: "IN_PROGRESS"}
_LOOK_S = 0.5

log = logging.getLogger(__name__)


class CommandFailed(Exception):
    """The command cannot do what was asked; the words are for the job's user."""


class CommandCancelled(Exception):
    """Nobody waits for it any longer."""


Cancelled = Callable[[], bool]
Work = Callable[[CommandJob, Cancelled], Mapping[str, Any]]
"""Does what a job asks for, and gives its result. Raises CommandFailed and CommandCancelled."""


class CommandLife:
    """Steps of jobs claimed by ``holder``. Thread-safe: one step a job at a time."""

    def __init__(self, context: Context, *, holder: str, work: Mapping[CommandKind, Work]) -> None:
        self._context = context
        self._holder = holder
        self._work = work

    def step(self, job: CommandJob) -> float | None:
        """Do all of it. Returns None, as at the end."""
        context = self._context
        if job.desired is Desired.STOPPED:
            self._end(job, "STOPPED")
            return None
        begun = context.now()
        with context.db.write() as connection:
            held = rows.change_command_job(
                connection,
                job.arn,
                token=self._holder,
                status=_RUNNING[job.kind],
                started_at=job.started_at or begun,
                modified_at=begun,
            )
        if not held:
            return None
        stopping = job.request.get("StoppingCondition") or {}
        limit_s = stopping.get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_S)
        watch = _Watch(self._stop_asked, job, begun + int(limit_s * 1e6), context.now)
        try:
            result = self._work[job.kind](job, watch)
        except CommandCancelled:
            if watch.late:
                self._end(job, "FAILED", f"The job ran longer than {limit_s} seconds.")
            else:
                self._end(job, "STOPPED")
        except CommandFailed as error:
            self._end(job, "FAILED", str(error))
        else:
            self._end(job, "COMPLETED", result=result)
        return None

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
        now = self._context.now()
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
    """Whether to go on, asked often and looked up now and then. ``late``: the time is over."""

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
        self.late = False

    def __call__(self) -> bool:
        self.late = self._now() > self._deadline
        if not self._stopped and time.monotonic() >= self._next_look:
            self._stopped = self._stop_asked(self._job)
            self._next_look = time.monotonic() + _LOOK_S
        return self.late or self._stopped
