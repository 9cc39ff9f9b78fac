"""A full disk is told as one, with where to make room, and not as a bug."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from ridgeline_service.objects.boto import make_client
from ridgeline_service.placement import disk

from .conftest import KEY, RunningStore


def client(store: RunningStore) -> Any:
    """One that does not try again."""
    once = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.client(
        "s3",
        endpoint_url=store.url,
        region_name="us-east-1",
        aws_access_key_id=KEY.access_key_id,
        aws_secret_access_key=KEY.secret_access_key,
        config=once,
    )


def test_an_object_that_has_no_room(
    store: RunningStore, bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    s3 = client(store)
    with monkeypatch.context() as patched:
        patched.setattr("ridgeline_service.objects.storage.os.write", full)
        with pytest.raises(ClientError) as refused:
            s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    error = refused.value.response
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert error["Error"]["Code"] == "ServiceUnavailable"
    assert f"No space left on device: free some in {store.root}" in error["Error"]["Message"]
    [line] = [record for record in caplog.records if "failed" in record.getMessage()]
    assert line.exc_info is None
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")


@pytest.mark.parametrize("free", [0, 2 << 20])
@pytest.mark.parametrize("kind", ["object", "part", "copied part"])
def test_what_would_take_the_reserve_is_refused_so_that_objects_can_be_deleted(
    store: RunningStore, bucket: str, monkeypatch: pytest.MonkeyPatch, kind: str, free: int
) -> None:
    s3 = make_client(store.url, KEY)
    big = bytes(5 << 20)
    s3.put_object(Bucket=bucket, Key="old", Body=big)
    write, wanted = s3.put_object, {"Bucket": bucket, "Key": "new", "Body": big}
    if kind != "object":
        made = s3.create_multipart_upload(Bucket=bucket, Key="new")
        write, wanted = s3.upload_part, wanted | {"UploadId": made["UploadId"], "PartNumber": 1}
    if kind == "copied part":
        del wanted["Body"]
        write, wanted = s3.upload_part_copy, wanted | {"CopySource": f"{bucket}/old"}
    before = held(store)
    real = shutil.disk_usage(store.root)

    def usage(_place: Path) -> object:
        return real._replace(free=disk.RESERVE_BYTES // 2 + free + before - held(store))

    asked = Counter()
    s3.meta.events.register("before-send.s3", lambda request, **_: asked.update([request.method]))
    with monkeypatch.context() as patched:
        patched.setattr(disk.shutil, "disk_usage", usage)
        with pytest.raises(ClientError) as refused:
            write(**wanted)
        error = refused.value.response
        assert error["ResponseMetadata"]["HTTPStatusCode"] == 507
        assert error["Error"]["Code"] == "InsufficientStorage"
        assert str(store.root) in error["Error"]["Message"]
        assert asked == {"PUT": 1}
        assert held(store) == before
        s3.delete_object(Bucket=bucket, Key="old")
        assert held(store) == before - len(big)


def held(store: RunningStore) -> int:
    """Bytes of all blobs."""
    files = [path for path in (store.root / "blobs").rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)
