"""What the runners of all kinds of jobs share: they work until they have ended, and always say how.

A runner is told to stop by SIGTERM. If the control plane left a reason, it ends what it does and
keeps what there is; without one the service is going down, and the job is interrupted: it will go
on later. It outlives the control plane and does not need it.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from ridgeline_service.training.causes import Cause, JobFailed, JobStopped
from ridgeline_service.training.failing import failure_reason
from ridgeline_service.training.order import Order
from ridgeline_service.training.report import Reporter, asked_for_stop

log = logging.getLogger(__name__)


class JobRunner(ABC):
    """``stop`` may be called from a signal handler; ``run`` once."""

    def __init__(self, folder: Path, order: Order, *, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._order = order
        self._now = now
        self._asked = threading.Event()
        self._reporter = Reporter(folder, self.now_us)

    @abstractmethod
    def work(self) -> Cause:
        """All of the job; returns why it was stopped, if it was. Raises JobFailed or JobStopped."""

    @abstractmethod
    def close(self) -> None:
        """Called at the end, however that came."""

    def stop(self) -> None:
        self._asked.set()

    def run(self) -> None:
        """To the end, which is always in the report."""
        try:
            self._end(self.work())
        except JobStopped:
            self._end(self.why_stop())
        except JobFailed as error:
            self._reporter.end("failed", error.cause, failure_reason(error))
        except Exception as error:  # a bug of ours must not leave the job without an ending
            log.exception("the job runner failed")
            words = f"The job runner failed: {type(error).__name__}: {error}"
            failed = JobFailed(Cause.INTERNAL, words)
            self._reporter.end("failed", failed.cause, failure_reason(failed))
        finally:
            self.close()

    def check_stop(self) -> None:
        """Raises JobStopped if it is to end."""
        if self.why_stop() is not Cause.NONE:
            raise JobStopped

    def why_stop(self) -> Cause:
        """By what is written, so that a signal that came too early is not missed; a signal without
        anything written means that the service goes down."""
        cause = asked_for_stop(self._folder) or Cause.NONE
        if cause is Cause.NONE and self._asked.is_set():
            cause = Cause.INTERRUPTED
        if cause is not Cause.NONE:
            words = self._order.words
            self._reporter.enter_once("Stopping", f"Stopping the {words}")
        return cause

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return int(self._now() * 1e6)

    def _end(self, stopped: Cause) -> None:
        if stopped is Cause.INTERRUPTED:
            self._reporter.end("interrupted", stopped)
        else:
            self._reporter.end("completed" if stopped is Cause.NONE else "stopped", stopped)
