"""Another S3 behind the settings: here a second store with a key that clients do not know."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from ridgeline_service.objects.boto import make_client
from ridgeline_service.objects.forward import Forwarder
from ridgeline_service.snapshot import Credential

from .conftest import KEY, RunningStore, running_store
from .test_signatures import send

FRONT = KEY
BACK = Credential("AKIDBACK", "back-secret")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningStore, RunningStore]]:
    with running_store(tmp_path_factory.mktemp("back"), BACK) as back:
        forwarder = Forwarder(back.url, BACK, "us-east-1")
        with running_store(tmp_path_factory.mktemp("front"), FRONT, forwarder) as front:
            yield front, back


def test_everything_passes(chain: tuple[RunningStore, RunningStore]) -> None:
    front, back = (
        make_client(store.url, key) for store, key in zip(chain, (FRONT, BACK), strict=True)
    )
    front.create_bucket(Bucket="bucket")
    key = "odd key/+%é"
    front.put_object(
        Bucket="bucket", Key=key, Body=b"x", ContentType="text/odd", Metadata={"a": "1"}
    )
    seen = back.get_object(Bucket="bucket", Key=key)
    assert (seen["Body"].read(), seen["ContentType"], seen["Metadata"]) == (
        b"x",
        "text/odd",
        {"a": "1"},
    )
    body = bytes(range(256)) * 30_000
    config = boto3.s3.transfer.TransferConfig(
        multipart_threshold=1, multipart_chunksize=5 * 1024 * 1024
    )
    front.upload_fileobj(io.BytesIO(body), "bucket", "big", Config=config)
    assert front.get_object(Bucket="bucket", Key="big")["Body"].read() == body
    assert front.get_object(Bucket="bucket", Key="big", Range="bytes=1-3")["Body"].read() == (
        b"\x01\x02\x03"
    )
    front.put_object(Bucket="bucket", Key="empty", Body=b"")
    front.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": key})
    page = front.list_objects_v2(Bucket="bucket", MaxKeys=2)
    assert [item["Key"] for item in page["Contents"]] == ["big", "copy"]
    deleted = [{"Key": name} for name in ("big", "copy", "empty", key)]
    front.delete_objects(Bucket="bucket", Delete={"Objects": deleted})
    front.delete_bucket(Bucket="bucket")
    with pytest.raises(ClientError) as missing:
        front.head_object(Bucket="bucket", Key="big")
    assert missing.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_only_our_own_keys_open_it(chain: tuple[RunningStore, RunningStore]) -> None:
    with pytest.raises(ClientError) as refused:
        make_client(chain[0].url, BACK).list_buckets()
    assert refused.value.response["Error"]["Code"] == "InvalidAccessKeyId"


def test_a_tampered_body_does_not_arrive(chain: tuple[RunningStore, RunningStore]) -> None:
    back: Any = make_client(chain[1].url, BACK)
    back.create_bucket(Bucket="tampered")
    answer = send(chain[0], "PUT", "/tampered/k", b"good", on_wire=lambda *_: b"evil")
    assert (answer.status, b"XAmzContentSHA256Mismatch" in answer.body) == (400, True)
    assert back.list_objects_v2(Bucket="tampered")["KeyCount"] == 0


def test_an_endpoint_that_is_away(tmp_path_factory: pytest.TempPathFactory) -> None:
    away = Forwarder("http://127.0.0.1:9", BACK, "us-east-1")
    with running_store(tmp_path_factory.mktemp("away"), FRONT, away) as front:
        answer = send(front, "GET", "/")
        assert (answer.status, b"ServiceUnavailable" in answer.body) == (503, True)
