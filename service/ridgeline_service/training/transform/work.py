"""What is left to do of a transform job: one input after the other, batch by batch, handed out to
threads; an input whose batches are all answered becomes its output, by one upload.

All of it can be done again after a kill at any moment: answers are in a journal before they count,
an output is written whole or not at all, and an input that is done is marked after that. An input
that fails gets no output and keeps none of the others from theirs.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from boto3.exceptions import Boto3Error

from ridgeline_service.files import write_atomic
from ridgeline_service.objects.reading import S3Failed, S3Reader, parse_uri, s3_failures
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.channels import Wanted
from ridgeline_service.training.order import Transform
from ridgeline_service.training.transform.parts import Parts
from ridgeline_service.training.transform.records import BadInput, Batch, batches


class InputFailed(JobFailed):
    """One input cannot be answered as a whole; the others can."""


class Input:
    """One object on its way. Answers may come from many threads."""

    def __init__(
        self,
        wanted: Wanted,
        transform: Transform,
        reader: S3Reader,
        folder: Path,
        took: Callable[[int], None],
    ) -> None:
        """``took`` is told of every piece that was downloaded; what it raises ends that."""
        name = hashlib.sha256(f"{wanted.bucket}/{wanted.item.key}".encode()).hexdigest()[:32]
        self.wanted = wanted
        self._transform = transform
        self._reader = reader
        self._took = took
        self._data = folder / f"{name}.in"
        self._journal = folder / f"{name}.parts"
        self._out = folder / f"{name}.out"
        self._done = folder / f"{name}.done"
        self._identity = {
            "key": wanted.item.key,
            "etag": wanted.item.etag,
            "settings": [
                transform.split,
                transform.single,
                transform.max_bytes,
                transform.gzip,
                asdict(transform.filters),
            ],
        }
        self._lock = threading.Lock()
        self._parts: Parts | None = None
        self._open = 0
        self._exhausted = False
        self._claimed = False
        self.failed = False

    @property
    def uri(self) -> str:
        return f"s3://{self.wanted.bucket}/{self.wanted.item.key}"

    @property
    def is_done(self) -> bool:
        """Whether an earlier attempt has written its output."""
        return self._done.is_file() and json.loads(self._done.read_text()) == self._identity

    def batches(self) -> Iterator[Batch]:
        """Those that nobody has answered. Raises InputFailed if it cannot be split, JobFailed."""
        try:
            self._reader.download(self.wanted.bucket, self.wanted.item.key, self._data, self._took)
        except S3Failed as error:
            cause = Cause.DATA_UNREACHABLE if error.retry else Cause.DATA_INVALID
            raise JobFailed(cause, f"Input {self.uri}: {error.message}") from error
        self._parts = Parts(self._journal, self._identity)
        try:
            with self._opened() as file:
                for batch in batches(
                    file,
                    self._transform.split,
                    single=self._transform.single,
                    max_bytes=self._transform.max_bytes,
                ):
                    if batch.index in self._parts:
                        continue
                    if self.failed:
                        return
                    with self._lock:
                        self._open += 1
                    yield batch
        except (BadInput, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputFailed(
                Cause.DATA_INVALID, f"Input {self.uri} cannot be split: {error}."
            ) from error
        with self._lock:
            self._exhausted = True

    def answered(self, batch: Batch, answer: bytes) -> None:
        """Keep an answer."""
        with self._lock:
            assert self._parts is not None
            self._parts.add(batch.index, answer)
            self._open -= 1

    def is_ready(self) -> bool:
        """Whether all answers are there; true once, for the thread that is to upload it."""
        with self._lock:
            complete = self._exhausted and self._open == 0 and not self.failed
            ready = complete and not self._claimed
            self._claimed = self._claimed or ready
            return ready

    def fail(self) -> bool:
        """Ask for nothing more of it; whether this is the first time."""
        with self._lock:
            first = not self.failed
            self.failed = True
            return first

    def upload(self) -> None:
        """Its output, at once and whole; then it is done for good. Raises JobFailed."""
        assert self._parts is not None
        with self._out.open("w+b") as file:
            self._parts.assemble(file, lines=self._transform.lines)
            file.seek(0)
            uri = f"{self._transform.output_uri}/{self.wanted.path}.out"
            bucket, key = parse_uri(uri)
            try:
                with s3_failures(uri):
                    self._reader.client.upload_fileobj(file, bucket, key)
            except S3Failed as error:
                cause = Cause.DATA_UNREACHABLE if error.retry else Cause.UPLOAD_FAILED
                raise JobFailed(cause, f"The output could not be written: {error}") from error
            except Boto3Error as error:
                raise JobFailed(
                    Cause.UPLOAD_FAILED, f"The output {uri} could not be written: {error}"
                ) from error
        write_atomic(self._done, json.dumps(self._identity), mode=0o600)
        self.close()
        for path in (self._data, self._journal, self._out):
            path.unlink()

    def close(self) -> None:
        if self._parts is not None:
            self._parts.close()
            self._parts = None

    def _opened(self) -> BinaryIO:
        if self._transform.gzip:
            return gzip.open(self._data, "rb")  # type: ignore[return-value]
        return self._data.open("rb")


@dataclass(frozen=True)
class Task:
    """One request to make."""

    input: Input
    batch: Batch


class Work:
    """Hands out tasks to threads, in order, and writes an output when its last answer has come."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self._tasks = self._walk(inputs)
        self._lock = threading.Lock()
        self.failures: list[InputFailed] = []

    def next(self) -> Task | None:
        """None when there is nothing left to hand out. Raises JobFailed."""
        with self._lock:
            return next(self._tasks, None)

    def answered(self, task: Task, answer: bytes) -> None:
        """Raises JobFailed if the output cannot be written."""
        task.input.answered(task.batch, answer)
        if task.input.is_ready():
            task.input.upload()

    def failed(self, each: Input, error: InputFailed) -> None:
        """Nothing more of this input is asked; its first failure is kept."""
        if each.fail():
            self.failures.append(error)

    def _walk(self, inputs: Sequence[Input]) -> Iterator[Task]:
        for each in inputs:
            if each.is_done:
                continue
            try:
                for batch in each.batches():
                    yield Task(each, batch)
            except InputFailed as error:
                self.failed(each, error)
            if each.is_ready():  # it was empty, or its last answer came before its end was seen
                each.upload()
