"""Reading and writing S3 while the store comes and goes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ResponseStreamingError

from ridgeline_service.objects.reading import S3Failed, S3Reader

AWAY = EndpointConnectionError(endpoint_url="http://store")
BROKEN = ResponseStreamingError(error="broke off")
ABSENT = ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
FULL = ClientError({"ResponseMetadata": {"HTTPStatusCode": 507}}, "PutObject")  # type: ignore[typeddict-item]


class Store:
    """One object, behind failures that come first."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.stored = b""

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        return {"Body": self}

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        yield b"be"
        self._fail()
        yield b"gun"

    def upload_fileobj(self, file: Any, bucket: str, key: str, Config: Any = None) -> None:
        body = file.read()
        file.close()
        self._fail()
        self.stored = body

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def reader(store: Store, patience_s: float) -> S3Reader:
    clock = Clock()
    return S3Reader(store, patience_s=patience_s, clock=lambda: clock.now, sleep=clock.sleep)


def test_a_body_that_breaks_off_is_fetched_again(tmp_path: Path) -> None:
    took: list[int] = []
    patient = reader(Store(BROKEN, AWAY), 60)
    patient.download("b", "k", tmp_path / "file", took.append)
    assert (tmp_path / "file").read_bytes() == b"begun"
    assert took == [2, 2, 2, 3]


def test_an_upload_that_breaks_off_begins_again() -> None:
    store, file = Store(AWAY, AWAY), io.BytesIO(b"all of it")
    reader(store, 60).upload(file, "s3://b/k")
    assert store.stored == b"all of it"
    assert not file.closed


def test_patience_ends(tmp_path: Path) -> None:
    store = Store(*[AWAY] * 100)
    with pytest.raises(S3Failed) as caught:
        reader(store, 10).download("b", "k", tmp_path / "file", lambda _: None)
    assert caught.value.retry
    assert len(store.failures) == 89


@pytest.mark.parametrize(
    ("failure", "patience_s"),
    [(ABSENT, 60), (AWAY, 0), (FULL, 60), (OSError("disk full"), 60)],
)
def test_what_waiting_does_not_mend_is_told_at_once(
    tmp_path: Path, failure: Exception, patience_s: float
) -> None:
    store = Store(failure, failure)
    with pytest.raises(S3Failed):
        reader(store, patience_s).download("b", "k", tmp_path / "file", lambda _: None)
    assert len(store.failures) == 1
