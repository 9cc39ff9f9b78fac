"""Checkpoints: what S3 has is there when the script starts, and what the script writes goes to S3
while it runs, so that a job that is interrupted goes on from there.

A file is uploaded when it is fit for that, and once more at the end. Nothing is deleted in S3.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from boto3.exceptions import Boto3Error

from ridgeline_service.objects.reading import S3Failed, S3Reader, parse_uri
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.channels import Wanted, check_paths
from ridgeline_service.training.layout import INSIDE, Layout
from ridgeline_service.training.refused import Refused, shown
from ridgeline_service.training.settling import FileShrank, Settling, State, snapshot
from ridgeline_service.training.walking import Found, files_below, opened_below

EVERY_S = 2.0

log = logging.getLogger(__name__)


class Checkpoints:
    """One folder below /opt/ml and one prefix of S3."""

    def __init__(
        self,
        reader: S3Reader,
        uri: str,
        path: str,
        layout: Layout,
        title: str = "Checkpoints",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``title`` is what failures call it."""
        self._title = title
        self._reader = reader
        self._uri = f"{uri.rstrip('/')}/"
        self._layout = layout
        self._folder = layout.outside(path)
        self._below = path.removeprefix(INSIDE).strip("/")
        self._settling = Settling(clock)
        self._refused = Refused()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def restore(self, took: Callable[[int], None]) -> int:
        """Bring what S3 has; returns the number of files. Raises JobFailed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        bucket, prefix = parse_uri(self._uri)
        try:
            found = [
                Wanted(bucket, item, item.key.removeprefix(prefix))
                for item in self._reader.list(self._uri)
            ]
            check_paths(found, self._title)
            for each in found:
                into = self._folder / each.path
                self._reader.download(bucket, each.item.key, into, took)
                self._settling.keep(each.path, _state(into))
        except S3Failed as error:
            cause = Cause.DATA_UNREACHABLE if error.retry else Cause.DATA_INVALID
            raise JobFailed(cause, f"{self._title}: {error.message}") from error
        return len(found)

    def start(self) -> None:
        """Go on with ``sync`` on a thread of its own until ``finish``."""
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """End the thread and bring the rest to S3. Raises JobFailed, when all is there that could
        be brought."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.sync(final=True)
        except (S3Failed, Boto3Error, OSError, FileShrank) as error:
            raise JobFailed(
                Cause.UPLOAD_FAILED, f"{self._title} could not be uploaded to {self._uri}: {error}"
            ) from error
        failed = self._refused.failure(self._title, self._uri)
        if failed is not None:
            raise failed

    def sync(self, *, final: bool = False) -> int:
        """Upload what is fit for it; returns how many files. Raises S3Failed or Boto3Error."""
        uploaded = 0
        again = self._refused.take() if final else set()
        looked = set()
        with opened_below(self._layout.root, self._below) as handle:
            for found in files_below(handle) if handle is not None else ():
                if found.link is None:
                    looked.add(found.path)
                    uploaded += self._look(found, final=final, again=found.path in again)
        self._settling.looked(looked)
        return uploaded

    def _look(self, found: Found, *, final: bool, again: bool) -> bool:
        """Whether it was uploaded."""
        file = self._settling.ready(found, final=final, again=again)
        if file is None:
            return False
        with file:
            content, state = snapshot(file)
            uri = f"{self._uri}{found.path}"
            try:
                stored = self._refused.put(found.path, lambda: self._reader.upload(content, uri))
            except FileShrank:
                if final:
                    raise
                return False
        self._settling.keep(found.path, state)
        if not stored:
            log.warning("%s: S3 does not take %s", self._title, shown(found.path))
        return stored

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            try:
                self.sync()
            except (S3Failed, Boto3Error, OSError) as error:
                # The store may be away for a while; a later look makes up for it.
                log.warning("%s wait for the object store: %s", self._title, error)
            except Exception:  # a bug of ours must not end the looks without a word
                log.exception("%s could not be looked at", self._title)


def _state(path: Path) -> State:
    status = path.stat()
    return State(status.st_ino, status.st_size, status.st_mtime_ns)
