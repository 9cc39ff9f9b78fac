"""A full disk is told as one, with where to make room, and not as a bug."""

from __future__ import annotations

import errno
import os
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from .conftest import KEY, RunningStore


def test_an_object_that_has_no_room(
    store: RunningStore, bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    once = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    s3 = boto3.client(
        "s3",
        endpoint_url=store.url,
        region_name="us-east-1",
        aws_access_key_id=KEY.access_key_id,
        aws_secret_access_key=KEY.secret_access_key,
        config=once,
    )
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
