"""Reading and writing S3 with a boto3 client: what lies there, and its bytes, with typed failures.

Knows neither models nor jobs: whoever reads puts a failure into the words of what it reads for.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

T = TypeVar("T")

_CHUNK = 1 << 20
_AGAIN_S = 1.0
_ABSENT = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})


@dataclass(frozen=True)
class S3Object:
    """One object; ``etag`` changes with its content."""

    key: str
    size: int
    etag: str


class S3Failed(Exception):
    """Something could not be read or written. ``absent``: there is no such thing; ``retry``:
    trying again may help; ``of_request``: this one request was refused, as one with a key that is
    too long is, and others may be taken; ``no_room``: the store is full."""

    def __init__(
        self,
        uri: str,
        message: str,
        *,
        absent: bool = False,
        retry: bool = False,
        of_request: bool = False,
        no_room: bool = False,
    ) -> None:
        super().__init__(message)
        self.uri = uri
        self.message = message
        self.absent = absent
        self.retry = retry
        self.of_request = of_request
        self.no_room = no_room


def parse_uri(uri: str) -> tuple[str, str]:
    """Bucket and key. Raises S3Failed."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise S3Failed(uri, f"{uri!r} is no S3 URI (s3://BUCKET/KEY).")
    return bucket, key


def object_in(uri: str) -> tuple[str, str]:
    """Bucket and key of one object. Raises S3Failed."""
    bucket, key = parse_uri(uri)
    if not key:
        raise S3Failed(uri, f"{uri!r} names no object: the key is missing (s3://BUCKET/KEY).")
    return bucket, key


class S3Reader:
    """Reads and writes through one boto3 S3 client. Every method raises S3Failed.

    What may help to try again is tried again for ``patience_s``: boto3 does so within seconds, but
    not for a body that breaks off, and a store that is started again may be away for longer.
    """

    def __init__(
        self,
        client: Any,
        *,
        patience_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.client = client
        self._patience_s = patience_s
        self._clock = clock
        self._sleep = sleep

    def head(self, uri: str) -> S3Object:
        bucket, key = object_in(uri)
        found = self._patiently(uri, lambda: self.client.head_object(Bucket=bucket, Key=key))
        return S3Object(key, found["ContentLength"], found["ETag"])

    def check_bucket(self, uri: str) -> None:
        """Whether the bucket of ``uri`` is there for us."""
        bucket, _ = parse_uri(uri)
        self._patiently(f"s3://{bucket}", lambda: self.client.head_bucket(Bucket=bucket))

    def list(self, uri: str) -> list[S3Object]:
        """Objects whose key begins with the prefix, by key; none if there is none. Keys that end
        with a slash are folders of consoles and no data."""
        bucket, prefix = parse_uri(uri)

        def all_pages() -> list[S3Object]:
            pages = self.client.get_paginator("list_objects_v2")
            return [
                S3Object(item["Key"], item["Size"], item["ETag"])
                for page in pages.paginate(Bucket=bucket, Prefix=prefix)
                for item in page.get("Contents", ())
                if not item["Key"].endswith("/")
            ]

        return sorted(self._patiently(uri, all_pages), key=lambda item: item.key)

    def read(self, uri: str) -> bytes:
        """A whole object, for documents that are small."""
        bucket, key = object_in(uri)

        def whole() -> bytes:
            body: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
            return body

        return self._patiently(uri, whole)

    def download(self, bucket: str, key: str, into: Path, took: Callable[[int], None]) -> str:
        """Write the object to a file; returns its SHA-256 in hex. ``took`` is told the size of each
        piece that came; what it raises ends the download."""

        def whole() -> str:
            digest = hashlib.sha256()
            into.parent.mkdir(parents=True, exist_ok=True)
            with into.open("wb") as file:
                body = self.client.get_object(Bucket=bucket, Key=key)["Body"]
                for chunk in body.iter_chunks(_CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    took(len(chunk))
            return digest.hexdigest()

        return self._patiently(f"s3://{bucket}/{key}", whole)

    def upload(self, file: BinaryIO, uri: str, settings: Any = None) -> None:
        """Write what ``file`` holds from its beginning. ``settings``: boto3's TransferConfig."""
        bucket, key = parse_uri(uri)

        def whole() -> None:
            file.seek(0)
            self.client.upload_fileobj(_Unclosed(file), bucket, key, Config=settings)

        self._patiently(uri, whole)

    def _patiently(self, uri: str, call: Callable[[], T]) -> T:
        deadline = self._clock() + self._patience_s
        while True:
            try:
                with s3_failures(uri):
                    return call()
            except S3Failed as error:
                of_our_disk = isinstance(error.__cause__, OSError)
                if not error.retry or of_our_disk or self._clock() >= deadline:
                    raise
            self._sleep(_AGAIN_S)


_OF_REQUEST = ("KeyTooLongError", "InvalidURI", "InvalidArgument")
"""What S3 says of an object's name, and would say of no other one."""


class _Unclosed:
    """A file that boto3 does not close after its first try."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def close(self) -> None:
        """Left to whoever opened it."""


@contextmanager
def s3_failures(uri: str) -> Iterator[None]:
    """What S3 and the disk say, as S3Failed."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _ABSENT:
            raise S3Failed(uri, _nothing_at(uri, code), absent=True) from error
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        no_room = status == HTTPStatus.INSUFFICIENT_STORAGE
        raise S3Failed(
            uri,
            f"{uri}: {error}",
            retry=status >= 500 and not no_room,
            of_request=code in _OF_REQUEST,
            no_room=no_room,
        ) from error
    except BotoCoreError as error:
        retry = not isinstance(error, ParamValidationError)
        raise S3Failed(uri, f"{uri}: {error}", retry=retry) from error
    except OSError as error:
        message = f"{uri} could not be kept on disk: {error}"
        raise S3Failed(uri, message, retry=True) from error


def _nothing_at(uri: str, code: str) -> str:
    """HEAD has no body, so that of a bucket says as little as that of an object."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if code == "NoSuchBucket" and key:
        return f"There is no bucket {bucket!r} ({uri})."
    return f"There is nothing at {uri}." if key else f"There is no bucket {bucket!r}."
