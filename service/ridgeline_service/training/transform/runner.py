"""One instance of a transform job, from its order to its ending.

    Downloading (what there is to do) -> Starting the model server -> Transforming -> an ending

Threads take requests from the work that is left, ask the model server and keep its answers. The
server's death costs the answers that were under way, which are asked for again; the runner's own
costs no more, because another attempt goes on with the same folder.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from ridgeline_service.endings import shortened
from ridgeline_service.objects.reading import S3Failed, S3Reader
from ridgeline_service.runtime.usage import usage_of
from ridgeline_service.training.artifacts import Artifacts
from ridgeline_service.training.causes import Cause, JobFailed, JobStopped
from ridgeline_service.training.channels import check_paths, objects_of, share_of
from ridgeline_service.training.order import Order, Transform
from ridgeline_service.training.running import JobRunner
from ridgeline_service.training.transform.records import Batch
from ridgeline_service.training.transform.rows import BadRows, RowFilter, format_of
from ridgeline_service.training.transform.server import (
    MOST_DEATHS,
    Answer,
    Caller,
    ModelServer,
    ServerDied,
    TimedOut,
)
from ridgeline_service.training.transform.work import Input, InputFailed, Task, Work
from ridgeline_service.training.watching import Series

_LOOK_S = 0.05
_OBSERVE_S = 5.0
_FIRST_PAUSE_S = 0.5
_ANSWER_SHOWN = 400
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Answers after which asking again may help."""
_ONE_AT_A_TIME = (
    ". It was sent all of these in one request (BatchStrategy MultiRecord): if it takes one record "
    "a request, as language models do, use BatchStrategy SingleRecord with SplitType Line"
)


class TransformRunner(JobRunner):
    """One model server, and as many threads as there may be requests at once."""

    def __init__(
        self,
        folder: Path,
        order: Order,
        transform: Transform,
        reader: S3Reader,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(folder, order, now=now)
        self._transform = transform
        self._reader = reader
        self._monotonic = monotonic
        self._sleep = sleep
        self._series = Series(order)
        self._ending = threading.Event()
        self._observe_at = 0.0
        self._rows = _row_filter(transform)
        self._server = ModelServer(
            transform.server,
            folder / "scratch",
            tuple(Path(path) for path in order.confinement.hidden),
            startup_s=transform.startup_s,
            check_stop=self._check,
        )

    def work(self) -> Cause:
        Artifacts(self._reader, self._transform.output_uri, self._folder).check()
        self._reporter.enter("Downloading", "Looking for input data")
        inputs = self._inputs()
        if inputs:
            self._reporter.enter("Loading", "Starting the model server")
            self._server.start()
            self._reporter.change(training_started_at=self.now_us())
            self._reporter.enter("Transforming", "Transform in progress")
            self._answer_all(Work(inputs))
        self._reporter.change(training_ended_at=self.now_us())
        return Cause.NONE

    def close(self) -> None:
        self._server.stop()
        self._series.close()

    def _inputs(self) -> list[Input]:
        """This instance's share of the objects that are not done. Raises JobFailed."""
        source, order = self._transform.input, self._order
        folder = Path(self._transform.work) / order.host
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found = objects_of(source, self._reader)
        except S3Failed as error:
            cause = Cause.DATA_UNREACHABLE if error.retry else Cause.DATA_INVALID
            raise JobFailed(cause, f"{source.title}: {error.message}") from error
        check_paths(found, source.title)
        mine = share_of(found, source, host=order.index, hosts=len(order.hosts))
        inputs = [
            Input(each, self._transform, self._reader, folder, lambda _: self._check())
            for each in mine
        ]
        return [each for each in inputs if not each.is_done]

    def _answer_all(self, work: Work) -> None:
        """Raises what ended it: JobFailed or JobStopped."""
        pool = ThreadPoolExecutor(self._transform.concurrent, "transform")
        try:
            waiting = {
                pool.submit(self._take_tasks, work) for _ in range(self._transform.concurrent)
            }
            while waiting:
                done, waiting = wait(waiting, _LOOK_S, FIRST_COMPLETED)
                for each in done:
                    each.result()
                self.check_stop()
                self._observe()
        finally:
            self._ending.set()
            self._server.stop()
            pool.shutdown()
        if work.failures:
            raise _failure(work.failures)

    def _take_tasks(self, work: Work) -> None:
        caller = Caller(self._transform.timeout_s)
        try:
            while (task := work.next()) is not None:
                try:
                    answer = self._answer(caller, task)
                except InputFailed as error:
                    work.failed(task.input, error)
                else:
                    work.answered(task, answer)
        finally:
            caller.close()

    def _answer(self, caller: Caller, task: Task) -> bytes:
        """What is kept of the model's answer. Raises InputFailed, JobFailed or JobStopped."""
        transform, batch = self._transform, task.batch
        try:
            body = batch.body if self._rows is None else self._rows.request(batch.body)
            answer = self._ask(caller, task, body)
            if self._rows is None:
                return answer.body
            content_type = answer.content_type
            if format_of(content_type) is None:
                content_type = transform.accept
            return self._rows.answer(batch.body, answer.body, content_type)
        except BadRows as error:
            raise InputFailed(Cause.RECORD_INVALID, f"{_place(task)}: {error}.") from error

    def _ask(self, caller: Caller, task: Task, body: bytes) -> Answer:
        transform = self._transform
        wanted = {"Content-Type": transform.input.content_type, "Accept": transform.accept}
        headers = {name: value for name, value in wanted.items() if value}
        failures = deaths = 0
        while True:
            self._check()
            try:
                answer = self._server.invoke(caller, body, headers)
            except ServerDied:
                deaths += 1
                if deaths >= MOST_DEATHS:
                    words = f"the model server ended {deaths} times before it had answered."
                    raise self._server.failed(f"{_place(task)}: {words}") from None
                continue
            except TimedOut:
                said = f"the model did not answer within {transform.timeout_s:.0f} s"
                cause, again = Cause.MODEL_FAILED, True
            else:
                if 200 <= answer.status < 300:
                    return answer
                said = f"the model answered {answer.status}: {_message(answer.body)}"
                cause = Cause.MODEL_FAILED if answer.status >= 500 else Cause.RECORD_INVALID
                if cause is Cause.RECORD_INVALID and task.batch.count > 1:
                    said += _ONE_AT_A_TIME
                again = answer.status in _BUSY
            if not again or failures >= transform.retries:
                raise InputFailed(cause, f"{_place(task)}: {said}.")
            self._sleep(_FIRST_PAUSE_S * 2**failures)
            failures += 1

    def _check(self) -> None:
        """Raises JobStopped if this thread is to end."""
        if self._ending.is_set():
            raise JobStopped
        self.check_stop()

    def _observe(self) -> None:
        now, pid = self._monotonic(), self._server.pid
        if now >= self._observe_at and pid is not None:
            self._observe_at = now + _OBSERVE_S
            self._series.use(usage_of(pid))


def _failure(failures: Sequence[InputFailed]) -> JobFailed:
    """The first tells; how many other inputs have no output stands behind it."""
    first, *others = failures
    more = f" {1 + len(others)} inputs failed in all." if others else ""
    return JobFailed(first.cause, f"{first.message}{more}", first.log)


def _row_filter(transform: Transform) -> RowFilter | None:
    if transform.filters.idle:
        return None
    one_a_line = transform.split == "Line"
    return RowFilter(transform.filters, transform.input.content_type, one_a_line=one_a_line)


def _place(task: Task) -> str:
    """Which records are meant, as a user counts them."""
    batch: Batch = task.batch
    if batch.count == 1:
        return f"Record {batch.first + 1} of {task.input.uri}"
    return f"Records {batch.first + 1} to {batch.first + batch.count} of {task.input.uri}"


def _message(body: bytes) -> str:
    """What a model server says of an error: the message of a JSON document, else its text."""
    text = body.decode("utf-8", "replace").strip()
    try:
        said = json.loads(text)
    except ValueError:
        return shortened(text, _ANSWER_SHOWN)
    if isinstance(said, dict):
        inner = said.get("error", said)
        text = str(inner.get("message") or text) if isinstance(inner, dict) else str(inner)
    return shortened(text.rstrip("."), _ANSWER_SHOWN)
