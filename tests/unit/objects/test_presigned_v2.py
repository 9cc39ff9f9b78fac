"""Links that boto3 signs with Signature Version 2, which it does by default in us-east-1."""

from __future__ import annotations

import time
import urllib.request
from typing import Any
from urllib.error import HTTPError

import boto3
import pytest
from botocore.auth import HmacV1QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials

from .conftest import KEY, RunningStore


@pytest.fixture(scope="module")
def signer(store: RunningStore) -> Any:
    """As a user makes it: nothing said about signatures."""
    return boto3.client(
        "s3",
        endpoint_url=store.url,
        region_name="us-east-1",
        aws_access_key_id=KEY.access_key_id,
        aws_secret_access_key=KEY.secret_access_key,
    )


def ask(
    link: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    """Status and body. urllib adds a Content-Type of its own to bodies: an empty one is none."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        sent.setdefault("Content-Type", "")
    try:
        with urllib.request.urlopen(urllib.request.Request(link, body, sent, method=method)) as got:
            return got.status, got.read()
    except HTTPError as error:
        return error.code, error.read()


def link(
    store: RunningStore,
    path: str,
    *,
    method: str = "GET",
    expires: int = 60,
    host: str = "",
    auth_path: str | None = None,
    secret: str = KEY.secret_access_key,
) -> str:
    """A link by botocore's signer, to be asked of the store itself."""
    keys = ReadOnlyCredentials(KEY.access_key_id, secret, None)
    request = AWSRequest(method, f"http://{host or 'h'}{path}", auth_path=auth_path)
    HmacV1QueryAuth(keys, expires=expires).add_auth(request)
    url: str = request.url
    return url.replace(f"http://{host or 'h'}", store.url)


def test_all_methods(signer: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "dir/link +?ü"}

    def made(operation: str, **more: str) -> str:
        url: str = signer.generate_presigned_url(operation, Params=where | more)
        assert "AWSAccessKeyId=" in url
        assert "X-Amz-Signature" not in url
        return url

    assert ask(made("put_object"), "PUT", b"by link")[0] == 200
    assert ask(made("get_object")) == (200, b"by link")
    assert ask(made("head_object"), "HEAD") == (200, b"")
    typed = made("put_object", ContentType="text/plain")
    assert ask(typed, "PUT", b"x")[0] == 403
    assert ask(typed, "PUT", b"typed", Content_Type="text/plain")[0] == 200
    assert ask(made("delete_object"), "DELETE")[0] == 204
    assert ask(made("get_object"))[0] == 404


def test_answers_as_the_link_says(signer: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    params = {"Bucket": bucket, "Key": "k", "ResponseContentType": "text/special; a=b"}
    url = signer.generate_presigned_url("get_object", Params=params)
    with urllib.request.urlopen(url) as got:
        assert got.headers["Content-Type"] == "text/special; a=b"
    assert ask(url.replace("special", "evil"))[0] == 403
    listing = signer.generate_presigned_url("list_objects_v2", Params={"Bucket": bucket})
    assert b"<Key>k</Key>" in ask(listing)[1]


@pytest.mark.parametrize(
    "added",
    [
        "response-set-cookie=a%3Db",
        "response-location=http://elsewhere",
        "response-etag=x",
        "response-content-range=x",
        "response-Content-Type=text/html",
        "RESPONSE-CONTENT-TYPE=text/html",
        "response-CONTENT-DISPOSITION=inline",
        "response-Content-Length=3",
        "response-transfer-encoding=chunked",
        "response-=x",
    ],
)
def test_whoever_holds_a_link_adds_no_header(signer: Any, s3: Any, bucket: str, added: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"value")
    url = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})

    def answered(link: str) -> tuple[list[tuple[str, str]], bytes]:
        with urllib.request.urlopen(link) as got:
            varying = ("date", "x-amz-request-id")
            headers = [(n.lower(), v) for n, v in got.headers.items() if n.lower() not in varying]
            return headers, got.read()

    assert answered(f"{url}&{added}") == answered(url)


@pytest.mark.parametrize("host", ["{}.s3.amazonaws.com", "{}.localhost:8080"])
def test_virtual_host_style(store: RunningStore, s3: Any, bucket: str, host: str) -> None:
    s3.put_object(Bucket=bucket, Key="a b", Body=b"v")
    host = host.format(bucket)
    url = link(store, "/a%20b", host=host, auth_path=f"/{bucket}/a%20b")
    assert ask(url, Host=host) == (200, b"v")
    assert ask(url, Host=host.replace(bucket, "other"))[0] == 403


def test_tampered_links(store: RunningStore, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    url = link(store, f"/{bucket}/k")
    assert ask(url) == (200, b"v")
    expires = url.partition("Expires=")[2].partition("&")[0]
    changed = {
        "key": url.replace("/k?", "/l?"),
        "later": url.replace(expires, str(int(expires) + 1)),
        "endless": url.replace(expires, "inf"),
        "twice": f"{url}&Expires={int(expires) + 9}",
        "sub-resource": f"{url}&uploads",
        "upload": f"{url}&uploadId=x",
        "encoded": f"{url}&%75ploads",
        "override": f"{url}&response-content-type=text/html",
        "no signature": url.replace("Signature=", "Sig="),
        "empty": url.partition("Signature=")[0] + f"Signature=&Expires={expires}",
        "stranger": url.replace(KEY.access_key_id, "AKIDNOBODY"),
        "v4 too": f"{url}&X-Amz-Signature=0",
        "wrong secret": link(store, f"/{bucket}/k", secret="wrong"),
    }
    for name, broken in changed.items():
        status, said = ask(broken)
        assert status == 403, (name, said)
        assert b"<Code>" in said
    for method in ("PUT", "DELETE", "HEAD"):
        assert ask(url, method, b"evil" if method == "PUT" else None)[0] == 403
    assert ask(url, x_amz_copy_source="/other/key")[0] == 403
    assert ask(url, Authorization="AWS AKID:x")[0] == 403
    assert ask(url) == (200, b"v")


def test_an_expired_link(store: RunningStore, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    status, said = ask(link(store, f"/{bucket}/k", expires=-1 - int(time.time() % 1)))
    assert (status, b"Request has expired" in said) == (403, True)


def test_regions_that_need_version_4_get_it(store: RunningStore, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    client = boto3.client(
        "s3",
        endpoint_url=store.url,
        region_name="eu-central-1",
        aws_access_key_id=KEY.access_key_id,
        aws_secret_access_key=KEY.secret_access_key,
        config=Config(signature_version="s3v4"),
    )
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    assert ask(url) == (200, b"v")
