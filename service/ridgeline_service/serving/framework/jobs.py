"""Runs invocations on a few worker threads and hands their parts to the connection that waits.

User code runs at most ``workers`` times at once, streams included; what waits longer than the
timeout is refused, what runs longer is given up. Knows nothing of HTTP.
"""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ridgeline_service.serving.framework.errors import HostingError
from ridgeline_service.serving.framework.journal import say
from ridgeline_service.serving.framework.toolkit import Answer, Request, UserModel

_BUFFERED_PARTS = 64
_POLL_S = 0.5


class Busy(HostingError):
    """Every worker was busy for as long as a request may take."""

    status = 503


class TimedOut(HostingError):
    """User code took longer than SAGEMAKER_MODEL_SERVER_TIMEOUT."""

    status = 500


class UserCodeFailed(HostingError):
    """User code raised. The message is the exception's; the traceback is in the log."""

    status = 500


@dataclass(frozen=True)
class _End:
    """No further part; ``error`` where it ended by an exception."""

    error: HostingError | None = None


class Job:
    """One invocation: written by a worker, read by the connection's thread."""

    def __init__(self, model: UserModel, request: Request, timeout_s: float) -> None:
        self._model = model
        self._request = request
        self._timeout_s = timeout_s
        self._items: queue.Queue[Answer | bytes | _End] = queue.Queue(_BUFFERED_PARTS)
        self._started = threading.Event()
        self._cancelled = threading.Event()

    def run(self) -> None:
        """On a worker: never raises."""
        if self._cancelled.is_set():
            return
        self._started.set()
        try:
            answer = self._model.invoke(self._request)
            if isinstance(answer.body, bytes):
                self._put(answer)
            else:
                # The first part comes before the head: a generator that fails at once is a plain
                # error and not a broken stream.
                self._stream(answer, iter(answer.body))
            self._put(_End())
        except HostingError as error:
            say(f"{error.status}: {error}")
            self._put(_End(error))
        except BaseException as error:  # noqa: BLE001 (user code may raise anything)
            traceback.print_exc()
            self._put(_End(UserCodeFailed(str(error) or type(error).__name__)))

    def answer(self) -> tuple[Answer, Iterator[bytes] | None]:
        """Wait for the head; the iterator gives a stream's parts. Raises HostingError."""
        item = self._get()
        if isinstance(item, Answer):
            return item, None if isinstance(item.body, bytes) else self._parts()
        assert isinstance(item, _End)
        raise item.error or UserCodeFailed("The model gave no answer.")

    def cancel(self) -> None:
        """Nobody reads any more: a stream is closed at its next part."""
        self._cancelled.set()

    def _stream(self, answer: Answer, parts: Iterator[bytes]) -> None:
        try:
            first = next(parts, b"")
            self._put(answer)
            self._put(first)
            for part in parts:
                if not self._put(part):
                    return
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()

    def _parts(self) -> Iterator[bytes]:
        while True:
            item = self._get()
            if isinstance(item, bytes):
                yield item
            elif isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return

    def _put(self, item: Answer | bytes | _End) -> bool:
        """False when nobody reads any more."""
        while not self._cancelled.is_set():
            try:
                self._items.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def _get(self) -> Answer | bytes | _End:
        try:
            return self._items.get(timeout=self._timeout_s)
        except queue.Empty:
            self.cancel()
            limit = f"{self._timeout_s:g} s (SAGEMAKER_MODEL_SERVER_TIMEOUT)"
            if self._started.is_set():
                raise TimedOut(f"The model gave no answer within {limit}.") from None
            raise Busy(f"All workers were busy for {limit}.") from None


class Workers:
    """The threads that run user code."""

    def __init__(self, count: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="worker")

    def submit(self, model: UserModel, request: Request) -> Job:
        job = Job(model, request, self._timeout_s)
        self._pool.submit(job.run)
        return job
