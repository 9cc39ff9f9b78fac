"""An order to vary, and a store that is a folder."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ridgeline_service.objects.reading import S3Reader
from ridgeline_service.training.order import Confinement, Order


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order(
        job="j",
        arn="arn:aws:sagemaker:us-east-1:123456789012:training-job/j",
        region="us-east-1",
        attempt=0,
        host="algo-1",
        hosts=("algo-1",),
        instance_type="ml.m5.large",
        runtime="pytorch-training",
        output_uri="s3://bucket/out/j/output",
        max_runtime_s=60.0,
        stop_grace_s=2.0,
        cache=str(tmp_path / "cache"),
        samples=str(tmp_path / "samples.db"),
        confinement=Confinement("bubblewrap", (), 8 << 30, 30 << 30),
    )


class FakeS3:
    """As much of boto3's client as jobs use, over a dictionary of one bucket."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: list[str] = []

    def get_paginator(self, name: str) -> FakeS3:
        return self

    def paginate(self, Bucket: str, Prefix: str) -> list[dict[str, Any]]:
        found = [key for key in sorted(self.objects) if key.startswith(Prefix)]
        return [
            {"Contents": [{"Key": k, "Size": len(self.objects[k]), "ETag": "e"} for k in found]}
        ]

    def head_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self._check(Key)
        return {"ContentLength": len(self.objects[Key]), "ETag": "e"}

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self._check(Key)
        return {"Body": _Body(self.objects[Key])}

    def upload_fileobj(self, file: Any, bucket: str, key: str, Config: Any = None) -> None:
        self.objects[key] = file.read()
        self.uploads.append(key)

    def _check(self, key: str) -> None:
        if key not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")


class _Body(io.BytesIO):
    def iter_chunks(self, size: int) -> Any:
        while data := self.read(size):
            yield data


@pytest.fixture
def s3() -> FakeS3:
    return FakeS3()


@pytest.fixture
def reader(s3: FakeS3) -> S3Reader:
    return S3Reader(s3)
