"""Checkpoints: what S3 has is there when the script starts, and what the script writes goes to S3
while it runs, so that a job that is interrupted goes on from there.

A file is uploaded when it has not changed between two looks, and once more at the end. Nothing is
deleted in S3.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from boto3.exceptions import Boto3Error

from ridgeline_service.objects.reading import S3Failed, S3Reader, parse_uri
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.channels import Wanted, check_paths
from ridgeline_service.training.layout import INSIDE, Layout
from ridgeline_service.training.walking import Found, files_below, opened_below

EVERY_S = 2.0

_State = tuple[int, int]

log = logging.getLogger(__name__)


class Checkpoints:
    """One folder below /opt/ml and one prefix of S3."""

    def __init__(
        self, reader: S3Reader, uri: str, path: str, layout: Layout, title: str = "Checkpoints"
    ) -> None:
        """``title`` is what failures call it."""
        self._title = title
        self._reader = reader
        self._uri = f"{uri.rstrip('/')}/"
        self._layout = layout
        self._folder = layout.outside(path)
        self._below = path.removeprefix(INSIDE).strip("/")
        self._seen: dict[str, _State] = {}
        self._kept: dict[str, _State] = {}
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
                status = into.stat()
                self._kept[each.path] = (status.st_size, status.st_mtime_ns)
        except S3Failed as error:
            cause = Cause.DATA_UNREACHABLE if error.retry else Cause.DATA_INVALID
            raise JobFailed(cause, f"{self._title}: {error.message}") from error
        return len(found)

    def start(self) -> None:
        """Go on with ``sync`` on a thread of its own until ``finish``."""
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """End the thread and bring the rest to S3. Raises JobFailed."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.sync(final=True)
        except (S3Failed, Boto3Error, OSError) as error:
            raise JobFailed(
                Cause.UPLOAD_FAILED, f"{self._title} could not be uploaded to {self._uri}: {error}"
            ) from error

    def sync(self, *, final: bool = False) -> int:
        """Upload what has changed; returns how many files. Raises S3Failed or Boto3Error."""
        uploaded = 0
        with opened_below(self._layout.root, self._below) as handle:
            for found in files_below(handle) if handle is not None else ():
                state = (found.size, found.modified_ns)
                settled = final or self._seen.get(found.path) == state
                self._seen[found.path] = state
                if settled and found.link is None and self._kept.get(found.path) != state:
                    uploaded += self._upload(found)
                    self._kept[found.path] = state
        return uploaded

    def _upload(self, found: Found) -> bool:
        file = found.open()
        if file is None:
            return False
        with file:
            self._reader.upload(file, f"{self._uri}{found.path}")
        return True

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            try:
                self.sync()
            except (S3Failed, Boto3Error, OSError) as error:
                # The store may be away for a while; a later look makes up for it.
                log.warning("checkpoints wait for the object store: %s", error)
