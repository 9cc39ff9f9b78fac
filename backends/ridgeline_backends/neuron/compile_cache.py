"""Where compiled modules are kept: a folder, or a prefix of a bucket, by the compiler's version.

    PLACE/ridgelinecc-DIGEST/MODULE_GRAPH+FLAGS/module.json

Any number may write at once. A write is seen whole or not at all, and two writers of one key write
the same bytes, so it does not matter who is last. What was cut short counts as absent, and is
written anew. Imports no torch.
"""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ridgeline.errors import AlreadyExists, InvalidInput, NotFound
from ridgeline_backends.neuron.artifact import Module, compiler_version, read_artifact

if TYPE_CHECKING:
    from ridgeline.session import Session

CACHE_VARIABLE = "NEURON_COMPILE_CACHE_URL"
_FILE = "module.json"
_AWS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")


class Store(ABC):
    """Objects by name. `place` is what people call it. Safe for any number of threads."""

    place: str

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """None for what is not there. Raises `RidgelineError` where that cannot be told."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Readers see all of it or nothing."""


class FolderStore(Store):
    """Files below a folder, which need not be there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place = str(folder)

    def read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, content: bytes) -> None:
        """Raises `InvalidInput` for a folder that cannot be written."""
        path = self._folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, written = tempfile.mkstemp(dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(written).replace(path)
        except OSError as error:
            raise InvalidInput(
                f"The compile cache {self.place} cannot be written: {error}.",
                hint=f"Name another with --cache or {CACHE_VARIABLE}.",
            ) from error


class BucketStore(Store):
    """Objects of a bucket, which is made where it is not there."""

    def __init__(self, session: Session, bucket: str, prefix: str) -> None:
        self._session = session
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.place = f"s3://{bucket}/{prefix}"

    def read(self, name: str) -> bytes | None:
        try:
            with self._session.call():
                found = self._session.s3_client.get_object(
                    Bucket=self._bucket, Key=self._prefix + name
                )
                content: bytes = found["Body"].read()
                return content
        except NotFound:
            return None

    def write(self, name: str, content: bytes) -> None:
        try:
            self._put(name, content)
        except NotFound:
            self._make_bucket()
            self._put(name, content)

    def _put(self, name: str, content: bytes) -> None:
        with self._session.call():
            self._session.s3_client.put_object(
                Bucket=self._bucket,
                Key=self._prefix + name,
                Body=content,
                ContentType="application/json",
            )

    def _make_bucket(self) -> None:
        where = {}
        if self._session.region != "us-east-1":
            where["CreateBucketConfiguration"] = {"LocationConstraint": self._session.region}
        try:
            with self._session.call():
                self._session.s3_client.create_bucket(Bucket=self._bucket, **where)
        except AlreadyExists:
            return  # somebody else was faster


class CompileCache:
    """Modules by their keys."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.place = store.place

    def get(self, key: str) -> Module | None:
        """A module that is there in whole; None for any other."""
        content = self._store.read(_name(key))
        found = None if content is None else read_artifact(content)
        return found if found is not None and found.key == key else None

    def put(self, key: str, artifact: bytes) -> None:
        self._store.write(_name(key), artifact)


def open_cache(url: str | None = None, environment: Mapping[str, str] = os.environ) -> CompileCache:
    """The cache at a folder or an S3 URL; None: that of `NEURON_COMPILE_CACHE_URL`, else a folder
    of this user's.

    S3 is that of the service which the environment or the data directory means; with keys and
    without AWS_ENDPOINT_URL, it is AWS. Raises `InvalidInput`, and `NotRunning` without a service.
    """
    given = url or environment.get(CACHE_VARIABLE)
    if given is None:
        given = str(Path.home() / ".cache" / "ridgeline" / "neuron-compile-cache")
    if not given.startswith("s3://"):
        if "://" in given and not given.startswith("file://"):
            raise InvalidInput(
                f"The compile cache {given} is no place there can be one.",
                hint="Give a folder of this machine, or s3://BUCKET/PREFIX.",
            )
        return CompileCache(FolderStore(Path(given.removeprefix("file://"))))
    bucket, _, prefix = given.removeprefix("s3://").partition("/")
    if not bucket:
        raise InvalidInput(f"The compile cache {given} names no bucket.", hint="s3://BUCKET/PREFIX")
    # boto3, which folders do without.
    from ridgeline.session import Session

    of_aws = any(environment.get(name) for name in _AWS) and not environment.get("AWS_ENDPOINT_URL")
    session = Session(aws=True) if of_aws else Session(environ=environment)
    return CompileCache(BucketStore(session, bucket, prefix.strip("/")))


def _name(key: str) -> str:
    return f"{compiler_version()}/{key}/{_FILE}"
