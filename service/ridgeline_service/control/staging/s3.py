"""Reading model data from S3: what lies there, and its bytes, with progress and typed failures.

Names content by the ETags S3 gives, so that the same name always means the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ridgeline_service.control.staging.base import (
    Cancelled,
    Report,
    StagingCancelled,
    StagingFailed,
)
from ridgeline_service.objects.reading import (
    S3Failed,
    S3Object,
    S3Reader,
    parse_uri,
    s3_failures,
)
from ridgeline_service.placement.disk import FULL, check_room
from ridgeline_service.store.states import Reason

_NO_FILE = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
"""What the system says of keys that cannot be files: too long a name, or one that others have as a
folder."""


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key. Raises StagingFailed."""
    with failures_named(uri):
        return parse_uri(uri)


def name_of(kind: str, bucket: str, objects: Sequence[S3Object]) -> str:
    """A directory name for what some objects hold."""
    digest = hashlib.sha256(f"{kind}\n{bucket}\n".encode())
    for item in objects:
        digest.update(f"{item.key}\n{item.size}\n{item.etag}\n".encode())
    return f"{kind}-{digest.hexdigest()[:32]}"


class ModelBucket:
    """Reads through one boto3 S3 client."""

    def __init__(self, client: Any) -> None:
        self._reader = S3Reader(client)

    def head(self, uri: str) -> S3Object:
        """Raises StagingFailed if there is no such object."""
        with failures_named(uri):
            return self._reader.head(uri)

    def list(self, uri: str) -> list[S3Object]:
        """Objects below the prefix, by key. Raises StagingFailed if there is none."""
        with failures_named(uri):
            found = self._reader.list(uri)
        if not found:
            raise _absent(uri)
        return found

    def download(
        self, bucket: str, item: S3Object, into: Path, counter: Counter, cancelled: Cancelled
    ) -> str:
        """Write the object to a file; returns its SHA-256 in hex."""

        def took(count: int) -> None:
            if cancelled():
                raise StagingCancelled
            counter.add(count)

        with failures_named(f"s3://{bucket}/{item.key}"):
            return self._reader.download(bucket, item.key, into, took)

    def download_all(
        self,
        uri: str,
        objects: Sequence[S3Object],
        into: Path,
        report: Report,
        cancelled: Cancelled,
    ) -> None:
        """The objects below a prefix, at the same paths below ``into``. Raises StagingFailed, and
        NoRoom before it writes anything."""
        bucket, prefix = split_uri(uri)
        total = sum(item.size for item in objects)
        check_room(into, total, uri)
        counter = Counter(report, total)
        for item in objects:
            relative = item.key.removeprefix(prefix).lstrip("/") or Path(item.key).name
            target = into / relative
            if ".." in relative.split("/"):
                raise StagingFailed(
                    Reason.MODEL_DATA_INVALID, f"The key {item.key!r} leads out of its prefix."
                )
            self.download(bucket, item, target, counter, cancelled)


class Counter:
    """Bytes of one download stage, over several files."""

    def __init__(self, report: Report, total: int, stage: str = "download") -> None:
        self._report = report
        self._total = total
        self._stage = stage
        self._done = 0
        report(stage, 0, total)

    def add(self, count: int) -> None:
        self._done += count
        self._report(self._stage, self._done, self._total)


@contextmanager
def failures_named(uri: str) -> Iterator[None]:
    """What S3 says, as a failure that says whether trying again may help."""
    try:
        with s3_failures(uri):
            yield
    except S3Failed as error:
        if error.absent:
            raise _absent(error.uri) from error
        raise _unkept(error) or _failed(error) from error


def _unkept(error: S3Failed) -> StagingFailed | None:
    """Of an object that the disk did not take, or the store's disk."""
    if error.no_room:
        return StagingFailed(Reason.DISK_FULL, error.message)
    cause = error.__cause__
    if not isinstance(cause, OSError) or cause.errno not in (*FULL, *_NO_FILE):
        return None
    reason = Reason.DISK_FULL if cause.errno in FULL else Reason.MODEL_DATA_INVALID
    return StagingFailed(reason, f"{error.uri} could not be kept on disk: {cause.strerror}.")


def _failed(error: S3Failed) -> StagingFailed:
    reason = Reason.DOWNLOAD_FAILED if error.retry else Reason.MODEL_DATA_INVALID
    return StagingFailed(reason, error.message)


def _absent(uri: str) -> StagingFailed:
    return StagingFailed(
        Reason.MODEL_DATA_INVALID,
        f"Could not find model data at {uri}. Upload it there, or correct the model's location.",
    )
