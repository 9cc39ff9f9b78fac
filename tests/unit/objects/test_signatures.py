"""Who is let in, and that a body which is not the signed one never becomes an object."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import urllib.request
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.error import HTTPError

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError

from .conftest import KEY, RunningStore

KEYS = ReadOnlyCredentials(KEY.access_key_id, KEY.secret_access_key, None)


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.body = response.read()
        self.headers = dict(response.getheaders())


def send(
    store: RunningStore,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    host: str = "",
    marker: str = "",
    headers: dict[str, str] | None = None,
    on_wire: Callable[[str, str], bytes] | None = None,
    break_after: int | None = None,
) -> Answer:
    """One signed request. ``on_wire`` makes the body from timestamp and signature of the head."""
    host = host or f"127.0.0.1:{store.port}"
    sent = {"Host": host, "X-Amz-Content-SHA256": marker or hashlib.sha256(body).hexdigest()}
    request = AWSRequest(method, f"http://{host}{path}", headers=sent | (headers or {}))
    signer = S3SigV4Auth(KEYS, "s3", "us-east-1")
    # The signer computes a payload hash of its own unless it is told which one to take.
    signer.payload = lambda _: sent["X-Amz-Content-SHA256"]  # type: ignore[method-assign]
    signer.add_auth(request)
    if on_wire is not None:
        authorization = request.headers["Authorization"]
        body = on_wire(request.headers["X-Amz-Date"], authorization.rpartition("Signature=")[2])
    connection = http.client.HTTPConnection("127.0.0.1", store.port, timeout=10)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in request.headers.items():
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    connection.send(body[:break_after])
    if break_after is not None:
        connection.close()
        return Answer.__new__(Answer)
    answer = Answer(connection.getresponse())
    connection.close()
    return answer


def frames(
    body: bytes, timestamp: str, seed: str, *, sizes: int, trailer: bytes = b"", spoil: bool = False
) -> bytes:
    """STREAMING-AWS4-HMAC-SHA256-PAYLOAD as the specification writes it."""
    scope = f"{timestamp[:8]}/us-east-1/s3/aws4_request"
    key = b"AWS4" + KEY.secret_access_key.encode()
    for item in scope.split("/"):
        key = hmac.new(key, item.encode(), hashlib.sha256).digest()
    empty = hashlib.sha256(b"").hexdigest()
    wire = b""
    previous = seed
    for start in [*range(0, len(body), sizes), len(body)]:
        chunk = body[start : start + sizes]
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{timestamp}\n{scope}\n{previous}\n{empty}\n"
        text += hashlib.sha256(chunk).hexdigest()
        previous = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        shown = chunk[:-1] + b"!" if spoil and chunk else chunk
        wire += b"%x;chunk-signature=%s\r\n" % (len(chunk), previous.encode())
        wire += shown + (b"\r\n" if chunk else b"")
    if trailer:
        covered = hashlib.sha256(trailer + b"\n").hexdigest()
        text = f"AWS4-HMAC-SHA256-TRAILER\n{timestamp}\n{scope}\n{previous}\n{covered}"
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        wire += trailer + b"\r\nx-amz-trailer-signature:" + signature.encode() + b"\r\n"
    return wire + b"\r\n"


def crc32(body: bytes) -> str:
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


def stored(s3: Any, bucket: str, key: str) -> bytes | None:
    try:
        body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey:
        return None
    return body


def blobs(store: RunningStore) -> int:
    return sum(1 for path in (store.root / "blobs").rglob("*") if path.is_file())


def test_strangers_are_refused(store: RunningStore, bucket: str) -> None:
    with pytest.raises(HTTPError) as unsigned:
        urllib.request.urlopen(f"{store.url}/{bucket}")
    assert unsigned.value.code == 403
    for changes, code in (
        ({"aws_access_key_id": "AKIDNOBODY"}, "InvalidAccessKeyId"),
        ({"aws_secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
    ):
        keys = {
            "aws_access_key_id": KEY.access_key_id,
            "aws_secret_access_key": KEY.secret_access_key,
        }
        client = boto3.client(
            "s3", endpoint_url=store.url, region_name="us-east-1", **(keys | changes)
        )
        with pytest.raises(ClientError) as refused:
            client.list_objects_v2(Bucket=bucket)
        assert refused.value.response["Error"]["Code"] == code


def test_signatures_of_other_services_do_not_open_it(store: RunningStore) -> None:
    from botocore.auth import SigV4Auth

    request = AWSRequest("GET", f"{store.url}/", headers={"Host": f"127.0.0.1:{store.port}"})
    SigV4Auth(KEYS, "sagemaker", "us-east-1").add_auth(request)
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(
            urllib.request.Request(f"{store.url}/", headers=dict(request.headers.items()))
        )
    assert refused.value.code == 403


def test_a_tampered_body_leaves_nothing(store: RunningStore, s3: Any, bucket: str) -> None:
    send(store, "PUT", f"/{bucket}/k", b"before")
    count = blobs(store)
    answer = send(store, "PUT", f"/{bucket}/k", b"good", on_wire=lambda *_: b"evil")
    assert answer.status == 400
    assert b"XAmzContentSHA256Mismatch" in answer.body
    assert stored(s3, bucket, "k") == b"before"
    assert blobs(store) == count


def test_unsigned_payload(store: RunningStore, s3: Any, bucket: str) -> None:
    assert send(store, "PUT", f"/{bucket}/u", b"x", marker="UNSIGNED-PAYLOAD").status == 200
    assert stored(s3, bucket, "u") == b"x"


@pytest.mark.parametrize("sizes", [1, 7, 64 * 1024])
def test_signed_frames(store: RunningStore, s3: Any, bucket: str, sizes: int) -> None:
    body = bytes(range(256)) * (1 if sizes < 100 else 2000)
    marker = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    headers = {"X-Amz-Decoded-Content-Length": str(len(body)), "Content-Encoding": "aws-chunked"}
    answer = send(
        store,
        "PUT",
        f"/{bucket}/f",
        marker=marker,
        headers=headers,
        on_wire=lambda time, seed: frames(body, time, seed, sizes=sizes),
    )
    assert (answer.status, answer.body) == (200, b"")
    assert stored(s3, bucket, "f") == body
    assert "ContentEncoding" not in s3.head_object(Bucket=bucket, Key="f")
    spoiled = send(
        store,
        "PUT",
        f"/{bucket}/spoiled",
        marker=marker,
        headers=headers,
        on_wire=lambda time, seed: frames(body, time, seed, sizes=sizes, spoil=True),
    )
    assert (spoiled.status, b"SignatureDoesNotMatch" in spoiled.body) == (403, True)
    assert stored(s3, bucket, "spoiled") is None


def test_signed_frames_with_a_trailer(store: RunningStore, s3: Any, bucket: str) -> None:
    body = b"payload"
    marker = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    headers = {
        "X-Amz-Decoded-Content-Length": "7",
        "X-Amz-Trailer": "x-amz-checksum-crc32",
        "Content-Encoding": "aws-chunked",
    }
    for checksum, status in ((crc32(body), 200), (crc32(b"other"), 400)):
        line = f"x-amz-checksum-crc32:{checksum}".encode()
        answer = send(
            store,
            "PUT",
            f"/{bucket}/t{status}",
            marker=marker,
            headers=headers,
            on_wire=lambda time, seed, line=line: frames(body, time, seed, sizes=3, trailer=line),
        )
        assert answer.status == status, answer.body
    assert stored(s3, bucket, "t200") == body
    assert stored(s3, bucket, "t400") is None


def test_unsigned_frames_with_a_trailer(store: RunningStore, s3: Any, bucket: str) -> None:
    body = b"payload"
    marker = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    headers = {
        "X-Amz-Decoded-Content-Length": "7",
        "X-Amz-Trailer": "x-amz-checksum-crc32",
        "Content-Encoding": "gzip,aws-chunked",
    }

    def put(key: str, wire: bytes) -> Answer:
        return send(
            store,
            "PUT",
            f"/{bucket}/{key}",
            marker=marker,
            headers=headers,
            on_wire=lambda *_: wire,
        )

    good = f"x-amz-checksum-crc32:{crc32(body)}".encode()
    assert put("good", b"7\r\npayload\r\n0\r\n" + good + b"\r\n\r\n").status == 200
    assert stored(s3, bucket, "good") == body
    assert s3.head_object(Bucket=bucket, Key="good")["ContentEncoding"] == "gzip"
    for name, wire in {
        "checksum": b"7\r\npayl0ad\r\n0\r\n" + good + b"\r\n\r\n",
        "short": b"6\r\npayloa\r\n0\r\n\r\n",
        "cut": b"7\r\npay",
        "long": b"3\r\npayload\r\n0\r\n\r\n",
        "size": b"x\r\npayload\r\n0\r\n\r\n",
        "tail": b"7\r\npayload\r\n0\r\n" + good + b"\r\n\r\nmore",
    }.items():
        assert put(name, wire).status == 400, name
        assert stored(s3, bucket, name) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-checksum-crc32", crc32(b"other")),
        ("x-amz-checksum-crc32c", base64.b64encode(bytes(4)).decode()),
        ("x-amz-checksum-crc64nvme", base64.b64encode(bytes(8)).decode()),
        ("x-amz-checksum-sha256", base64.b64encode(bytes(32)).decode()),
        ("x-amz-checksum-sha1", base64.b64encode(bytes(20)).decode()),
        ("Content-MD5", base64.b64encode(bytes(16)).decode()),
    ],
)
def test_wrong_checksums(store: RunningStore, s3: Any, bucket: str, name: str, value: str) -> None:
    answer = send(store, "PUT", f"/{bucket}/c", b"body", headers={name: value})
    assert (answer.status, b"BadDigest" in answer.body) == (400, True)
    assert stored(s3, bucket, "c") is None


@pytest.mark.parametrize(("name", "value"), [("crc32c", "4waSgw=="), ("crc64nvme", "rosUhgp5mIg=")])
def test_right_checksums_are_kept(
    store: RunningStore, s3: Any, bucket: str, name: str, value: str
) -> None:
    header = f"x-amz-checksum-{name}"
    answer = send(store, "PUT", f"/{bucket}/c", b"123456789", headers={header: value})
    assert (answer.status, answer.headers[header]) == (200, value)
    kept = s3.head_object(Bucket=bucket, Key="c", ChecksumMode="ENABLED")
    assert kept["ResponseMetadata"]["HTTPHeaders"][header] == value


def test_checksums_of_multipart_uploads(store: RunningStore, s3: Any, bucket: str) -> None:
    """Those of parts are verified; one of the whole object is not taken for the document's."""
    where = {"Bucket": bucket, "Key": "parts"}
    upload = s3.create_multipart_upload(**where, ChecksumAlgorithm="CRC32")["UploadId"]
    path = f"/{bucket}/parts?partNumber=1&uploadId={upload}"
    wrong = send(store, "PUT", path, b"x", headers={"x-amz-checksum-crc32c": "AAAAAA=="})
    assert (wrong.status, b"BadDigest" in wrong.body) == (400, True)
    part = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"whole")
    s3.complete_multipart_upload(
        **where,
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        ChecksumCRC32=crc32(b"whole"),
        ChecksumType="FULL_OBJECT",
    )
    assert stored(s3, bucket, "parts") == b"whole"


def test_a_client_that_leaves_in_the_middle(store: RunningStore, s3: Any, bucket: str) -> None:
    send(store, "PUT", f"/{bucket}/m", b"whole")
    send(store, "PUT", f"/{bucket}/m", b"x" * 100_000, break_after=50_000)
    assert stored(s3, bucket, "m") == b"whole"


@pytest.mark.parametrize(
    "host",
    [
        "{}.s3.amazonaws.com",
        "{}.s3.us-east-1.amazonaws.com",
        "{}.s3-eu-west-1.amazonaws.com",
        "{}.s3.dualstack.us-east-1.amazonaws.com",
        "{}.localhost:8080",
    ],
)
def test_virtual_host_style(store: RunningStore, s3: Any, bucket: str, host: str) -> None:
    host = host.format(bucket)
    assert send(store, "PUT", "/dir/a%20b", b"virtual", host=host).status == 200
    assert stored(s3, bucket, "dir/a b") == b"virtual"
    listing = send(store, "GET", "/?list-type=2", host=host)
    assert b"<Key>dir/a b</Key>" in listing.body


@pytest.mark.parametrize("host", ["s3.amazonaws.com", "s3.us-east-1.amazonaws.com", "localhost"])
def test_path_style_at_aws_names(store: RunningStore, bucket: str, host: str) -> None:
    assert send(store, "PUT", f"/{bucket}/p", b"path", host=host).status == 200


def presigner(store: RunningStore, **config: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=store.url,
        region_name="us-east-1",
        aws_access_key_id=KEY.access_key_id,
        aws_secret_access_key=KEY.secret_access_key,
        config=Config(**config),
    )


def test_presigned_links(store: RunningStore, s3: Any, bucket: str) -> None:
    client = presigner(store, signature_version="s3v4")
    where = {"Bucket": bucket, "Key": "link +?"}
    put = client.generate_presigned_url("put_object", Params=where)
    urllib.request.urlopen(urllib.request.Request(put, data=b"by link", method="PUT"))
    get = client.generate_presigned_url(
        "get_object", Params=where | {"ResponseContentType": "text/special"}
    )
    with urllib.request.urlopen(get) as answer:
        assert answer.read() == b"by link"
        assert answer.headers["Content-Type"] == "text/special"
    for broken in (get.replace("special", "evil"), put.replace("link", "other")):
        with pytest.raises(HTTPError) as refused:
            urllib.request.urlopen(broken)
        assert refused.value.code == 403


def test_expired_link(store: RunningStore, bucket: str) -> None:
    request = AWSRequest("GET", f"{store.url}/{bucket}?list-type=2")
    from botocore.auth import S3SigV4QueryAuth

    S3SigV4QueryAuth(KEYS, "s3", "us-east-1", expires=1).add_auth(request)
    past = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y%m%dT%H%M%SZ")
    date = request.url.partition("X-Amz-Date=")[2][:16]
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(request.url.replace(date, past))
    assert refused.value.code == 403
