"""Another S3 behind the settings: here a second store with a key that clients do not know."""

from __future__ import annotations

import io
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from ridgeline_service.objects.boto import make_client
from ridgeline_service.objects.forward import Forwarder
from ridgeline_service.security.sessions import make_session
from ridgeline_service.snapshot import Credential

from .conftest import KEY, RunningStore, running_store
from .test_presigned_headers import link, put
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


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """A server's address, and the heads of the requests that it has had."""
    heads: list[str] = []

    class Upstream(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heads.append(f"{self.path}\n{self.headers}")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", heads
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_token_of_a_session_stays_here(tmp_path: Path) -> None:
    """The other S3 knows none of our sessions, and is not to learn of them."""
    until = datetime.now(UTC) + timedelta(hours=1)
    session = make_session(FRONT.access_key_id, FRONT.secret_access_key, until)
    with listening() as (url, heads):
        forwarder = Forwarder(url, BACK, "us-east-1")
        with running_store(tmp_path, FRONT, forwarder) as front:

            def client(version: str) -> Any:
                return boto3.client(
                    "s3",
                    endpoint_url=front.url,
                    region_name="us-east-1",
                    aws_access_key_id=session.access_key_id,
                    aws_secret_access_key=session.secret_access_key,
                    aws_session_token=session.token,
                    config=Config(signature_version=version),
                )

            where = {"Bucket": "bucket", "Key": "k"}
            client("s3v4").get_object(**where, ExpectedBucketOwner="123456789012")
            for version in ("s3v4", "s3"):
                link = client(version).generate_presigned_url("get_object", Params=where)
                assert "token=" in link.lower()
                with urllib.request.urlopen(link) as answer:
                    assert answer.status == 200
    assert len(heads) == 3
    for head in heads:
        assert "AKIDBACK" in head
        assert "token" not in head.lower()
        assert session.token not in head


def test_what_a_links_holder_adds_to_the_answer_does_not_arrive(tmp_path: Path) -> None:
    """Another S3 may read these names in any spelling, and the link's signature covers one."""
    with listening() as (url, heads):
        forwarder = Forwarder(url, BACK, "us-east-1")
        with running_store(tmp_path, FRONT, forwarder) as front:
            client = make_client(front.url, FRONT)
            said = {"Bucket": "bucket", "Key": "k", "ResponseContentType": "text/special"}
            link = client.generate_presigned_url("get_object", Params=said)
            assert "AWSAccessKeyId=" in link
            added = "&response-Content-Type=text/html&Response-Expires=0&response-set-cookie=a"
            urllib.request.urlopen(link + added).close()
    asked = heads[0].partition("\n")[0]
    assert asked == "/bucket/k?response-content-type=text%2Fspecial"


def test_headers_that_are_not_ascii_are_answered(
    chain: tuple[RunningStore, RunningStore],
) -> None:
    front, back = (
        make_client(store.url, key) for store, key in zip(chain, (FRONT, BACK), strict=True)
    )
    back.create_bucket(Bucket="texts")
    back.put_object(Bucket="texts", Key="k", Body=b"v")
    named = 'attachment; filename="é.txt"'
    got = front.get_object(Bucket="texts", Key="k", ResponseContentDisposition=named)
    assert got["ContentDisposition"] == named


def test_headers_in_the_query_of_a_link_arrive_as_headers(
    chain: tuple[RunningStore, RunningStore],
) -> None:
    front, back = chain
    client: Any = make_client(back.url, BACK)
    client.create_bucket(Bucket="links")
    url = link(front, "PUT", "/links/k", x_amz_meta_who="ann")
    assert put(url)[0] == 200
    assert client.head_object(Bucket="links", Key="k")["Metadata"] == {"who": "ann"}
