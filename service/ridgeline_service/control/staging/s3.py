"""Reading model data from S3: what lies there, and its bytes, with progress and typed failures.

Names content by the ETags S3 gives, so that the same name always means the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ridgeline_service.control.staging.base import (
    Cancelled,
    Report,
    StagingCancelled,
    StagingFailed,
)
from ridgeline_service.store.states import Reason

_CHUNK = 1 << 20
_ABSENT = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})


@dataclass(frozen=True)
class S3Object:
    """One object; ``etag`` changes with its content."""

    key: str
    size: int
    etag: str


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key. Raises StagingFailed."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise StagingFailed(Reason.MODEL_DATA_INVALID, f"{uri!r} is no S3 URI (s3://BUCKET/KEY).")
    return bucket, key


def name_of(kind: str, bucket: str, objects: Sequence[S3Object]) -> str:
    """A directory name for what some objects hold."""
    digest = hashlib.sha256(f"{kind}\n{bucket}\n".encode())
    for item in objects:
        digest.update(f"{item.key}\n{item.size}\n{item.etag}\n".encode())
    return f"{kind}-{digest.hexdigest()[:32]}"


class ModelBucket:
    """Reads through one boto3 S3 client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def head(self, uri: str) -> S3Object:
        """Raises StagingFailed if there is no such object."""
        bucket, key = split_uri(uri)
        with failures_named(uri):
            found = self._client.head_object(Bucket=bucket, Key=key)
        return S3Object(key, found["ContentLength"], found["ETag"])

    def list(self, uri: str) -> list[S3Object]:
        """Objects below the prefix, by key. Raises StagingFailed if there is none."""
        bucket, prefix = split_uri(uri)
        found = []
        with failures_named(uri):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    if not item["Key"].endswith("/"):
                        found.append(S3Object(item["Key"], item["Size"], item["ETag"]))
        if not found:
            raise _absent(uri)
        return sorted(found, key=lambda item: item.key)

    def download(
        self, bucket: str, item: S3Object, into: Path, counter: Counter, cancelled: Cancelled
    ) -> str:
        """Write the object to a file; returns its SHA-256 in hex."""
        digest = hashlib.sha256()
        into.parent.mkdir(parents=True, exist_ok=True)
        with failures_named(f"s3://{bucket}/{item.key}"), into.open("wb") as file:
            body = self._client.get_object(Bucket=bucket, Key=item.key)["Body"]
            for chunk in body.iter_chunks(_CHUNK):
                if cancelled():
                    raise StagingCancelled
                file.write(chunk)
                digest.update(chunk)
                counter.add(len(chunk))
        return digest.hexdigest()

    def download_all(
        self,
        uri: str,
        objects: Sequence[S3Object],
        into: Path,
        report: Report,
        cancelled: Cancelled,
    ) -> None:
        """The objects below a prefix, at the same paths below ``into``."""
        bucket, prefix = split_uri(uri)
        counter = Counter(report, sum(item.size for item in objects))
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
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _ABSENT:
            raise _absent(uri) from error
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        reason = Reason.MODEL_DATA_INVALID if status < 500 else Reason.DOWNLOAD_FAILED
        raise StagingFailed(reason, f"{uri}: {error}") from error
    except BotoCoreError as error:
        raise StagingFailed(Reason.DOWNLOAD_FAILED, f"{uri}: {error}") from error
    except OSError as error:
        raise StagingFailed(
            Reason.DOWNLOAD_FAILED, f"{uri} could not be kept on disk: {error}"
        ) from error


def _absent(uri: str) -> StagingFailed:
    return StagingFailed(
        Reason.MODEL_DATA_INVALID,
        f"Could not find model data at {uri}. Upload it there, or correct the model's location.",
    )
