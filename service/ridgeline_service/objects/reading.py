"""Reading S3 with a boto3 client: what lies there, and its bytes, with typed failures.

Knows neither models nor jobs: whoever reads puts a failure into the words of what it reads for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

_CHUNK = 1 << 20
_ABSENT = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})


@dataclass(frozen=True)
class S3Object:
    """One object; ``etag`` changes with its content."""

    key: str
    size: int
    etag: str


class S3Failed(Exception):
    """Something could not be read or written. ``absent``: there is no such thing; ``retry``:
    trying again may help."""

    def __init__(self, uri: str, message: str, *, absent: bool = False, retry: bool = False):
        super().__init__(message)
        self.uri = uri
        self.message = message
        self.absent = absent
        self.retry = retry


def parse_uri(uri: str) -> tuple[str, str]:
    """Bucket and key. Raises S3Failed."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise S3Failed(uri, f"{uri!r} is no S3 URI (s3://BUCKET/KEY).")
    return bucket, key


class S3Reader:
    """Reads through one boto3 S3 client. Every method raises S3Failed."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def head(self, uri: str) -> S3Object:
        bucket, key = parse_uri(uri)
        with s3_failures(uri):
            found = self.client.head_object(Bucket=bucket, Key=key)
        return S3Object(key, found["ContentLength"], found["ETag"])

    def list(self, uri: str) -> list[S3Object]:
        """Objects whose key begins with the prefix, by key; none if there is none. Keys that end
        with a slash are folders of consoles and no data."""
        bucket, prefix = parse_uri(uri)
        found = []
        with s3_failures(uri):
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    if not item["Key"].endswith("/"):
                        found.append(S3Object(item["Key"], item["Size"], item["ETag"]))
        return sorted(found, key=lambda item: item.key)

    def read(self, uri: str) -> bytes:
        """A whole object, for documents that are small."""
        bucket, key = parse_uri(uri)
        with s3_failures(uri):
            body: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def download(self, bucket: str, key: str, into: Path, took: Callable[[int], None]) -> str:
        """Write the object to a file; returns its SHA-256 in hex. ``took`` is told the size of each
        piece that came; what it raises ends the download."""
        digest = hashlib.sha256()
        with s3_failures(f"s3://{bucket}/{key}"):
            into.parent.mkdir(parents=True, exist_ok=True)
            with into.open("wb") as file:
                body = self.client.get_object(Bucket=bucket, Key=key)["Body"]
                for chunk in body.iter_chunks(_CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    took(len(chunk))
        return digest.hexdigest()


@contextmanager
def s3_failures(uri: str) -> Iterator[None]:
    """What S3 and the disk say, as S3Failed."""
    try:
        yield
    except ClientError as error:
        if str(error.response.get("Error", {}).get("Code", "")) in _ABSENT:
            raise S3Failed(uri, f"There is nothing at {uri}.", absent=True) from error
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        raise S3Failed(uri, f"{uri}: {error}", retry=status >= 500) from error
    except BotoCoreError as error:
        raise S3Failed(uri, f"{uri}: {error}", retry=True) from error
    except OSError as error:
        message = f"{uri} could not be kept on disk: {error}"
        raise S3Failed(uri, message, retry=True) from error
