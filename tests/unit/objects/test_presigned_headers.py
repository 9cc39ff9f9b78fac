"""Links whose headers are in the query, as AWS's SDK for JavaScript presigns them."""

from __future__ import annotations

import urllib.request
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError

from .conftest import RunningStore
from .test_signatures import KEYS, send


def link(store: RunningStore, method: str, path: str, **said: str) -> str:
    query = urlencode({name.replace("_", "-"): v for name, v in said.items()}, quote_via=quote)
    request = AWSRequest(method, f"{store.url}{path}?{query}")
    S3SigV4QueryAuth(KEYS, "s3", "us-east-1", expires=60).add_auth(request)
    url: str = request.url
    return url


def put(url: str, body: bytes = b"x", **headers: str) -> tuple[int, bytes]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, sent, method="PUT")) as got:
            return got.status, got.read()
    except HTTPError as error:
        return error.code, error.read()


def test_metadata_is_kept(store: RunningStore, s3: Any, bucket: str) -> None:
    url = link(store, "PUT", f"/{bucket}/k", x_amz_meta_who="ann", x_amz_meta_what="a b&c")
    assert put(url, Content_Type="text/special")[0] == 200
    found = s3.head_object(Bucket=bucket, Key="k")
    assert found["Metadata"] == {"who": "ann", "what": "a b&c"}
    assert found["ContentType"] == "text/special"
    assert put(url.replace("ann", "bob"))[0] == 403


def test_other_headers_are_obeyed(store: RunningStore, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"source")
    url = link(store, "PUT", f"/{bucket}/copy", x_amz_copy_source=f"{bucket}/k")
    assert put(url, b"")[0] == 200
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == b"source"
    url = link(store, "PUT", f"/{bucket}/k", x_amz_expected_bucket_owner="999999999999")
    assert put(url)[0] == 403
    assert put(link(store, "PUT", f"/{bucket}/k", x_amz_tagging="a=b"))[0] == 501


def test_the_checksum_of_a_body_that_was_not_there_is_not_held_to(
    store: RunningStore, s3: Any, bucket: str
) -> None:
    said = {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-sdk-checksum-algorithm": "CRC32"}
    assert put(link(store, "PUT", f"/{bucket}/k", **said), b"not empty")[0] == 200
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"not empty"


@pytest.mark.parametrize("said", [{"x-amz-meta-a": "b\r\nevil: 1"}, {"x-amz-meta-a\nb": "1"}])
def test_what_no_header_can_hold_is_refused(
    store: RunningStore, bucket: str, said: dict[str, str]
) -> None:
    status, answer = put(link(store, "PUT", f"/{bucket}/k", **said))
    assert (status, b"cannot be a header" in answer) == (400, True)


def test_a_signature_in_the_headers_leaves_the_query_alone(
    store: RunningStore, s3: Any, bucket: str
) -> None:
    assert send(store, "PUT", f"/{bucket}/k?x-amz-meta-a=b", b"x").status == 200
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {}


def test_the_answer_has_what_the_link_says(store: RunningStore, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    said = {
        "response-cache-control": "no-store",
        "response-content-disposition": 'attachment; filename="é.txt"',
        "response-content-encoding": "identity",
        "response-content-language": "de",
        "response-content-type": "text/special",
        "response-expires": "Thu, 01 Jan 2032 00:00:00 GMT",
    }
    with urllib.request.urlopen(link(store, "GET", f"/{bucket}/k", **said)) as got:
        for name, value in said.items():
            assert got.headers.get_all(name.removeprefix("response-")) == [value]


@pytest.mark.parametrize("value", ["\N{SNOWMAN}", "a\r\nevil: 1", "a\0", "a\x7f"])
def test_an_answer_that_no_header_can_hold_is_refused(
    store: RunningStore, s3: Any, bucket: str, value: str
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    asked = {"Bucket": bucket, "Key": "k", "ResponseContentDisposition": value}
    with pytest.raises(ClientError) as caught:
        s3.get_object(**asked)
    assert caught.value.response["Error"]["Code"] == "InvalidArgument"
    assert "response-content-disposition" in caught.value.response["Error"]["Message"]
