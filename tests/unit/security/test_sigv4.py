"""Whatever botocore signs is accepted; whatever was changed on the way is not."""

from __future__ import annotations

import hashlib
import string
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from unittest import mock
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.errors import AccessDeniedException
from ridgeline_service.security.sigv4 import SignedRequest, is_signed, verify

KEY, SECRET = "RLAKEXAMPLE", "secret/with+signs="
KEYS = {KEY: SECRET}
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SERVICES = ("sagemaker", "s3", "sts", "logs")


@dataclass(frozen=True)
class Sent:
    request: SignedRequest
    body: bytes


def sign(
    service: str = "sagemaker",
    method: str = "POST",
    path: str = "/",
    query: str = "",
    headers: dict[str, str] | None = None,
    body: bytes = b"{}",
    *,
    secret: str = SECRET,
    at: datetime = NOW,
    presign: int = 0,
    scheme: str = "http",
    context: dict[str, object] | None = None,
) -> Sent:
    url = f"{scheme}://127.0.0.1:8080{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method=method, url=url, data=body, headers=headers or {})
    request.context.update(context or {})
    keys = Credentials(KEY, secret)
    if presign:
        request.data = b""
        kind = S3SigV4QueryAuth if service == "s3" else SigV4QueryAuth
        signer = kind(keys, service, "us-east-1", expires=presign)
    else:
        kind = S3SigV4Auth if service == "s3" else SigV4Auth
        signer = kind(keys, service, "us-east-1")
    with mock.patch("botocore.auth.get_current_datetime", return_value=at.replace(tzinfo=None)):
        signer.add_auth(request)
    parts = urlsplit(request.url)
    return Sent(
        SignedRequest(
            method=method,
            host="127.0.0.1:8080",
            raw_path=parts.path,
            query=parts.query.encode(),
            headers=[(name, str(value)) for name, value in request.headers.items()],
        ),
        b"" if presign else body,
    )


def check(sent: Sent, *, now: datetime = NOW, keys: dict[str, str] = KEYS) -> str:
    digest = hashlib.sha256(sent.body).hexdigest()
    return verify(sent.request, keys, now=now, body_sha256=digest).signer.access_key_id


def refused(sent: Sent, **options: object) -> str:
    with pytest.raises(AccessDeniedException) as caught:
        check(sent, **options)  # type: ignore[arg-type]
    assert caught.value.http_status == 403
    return caught.value.code


segments = st.text(min_size=1, max_size=12).filter(lambda text: text not in (".", ".."))
paths = st.lists(segments, max_size=4).map(
    lambda parts: "/" + "/".join(quote(part, safe="-_.~") for part in parts)
)
queries = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4).map(
    lambda pairs: "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in pairs)
)
header_names = st.text(alphabet=string.ascii_letters + string.digits + "-", min_size=1).map(
    lambda name: f"X-{name}"
)
headers_ = st.dictionaries(
    header_names, st.text(alphabet=string.ascii_letters + string.digits + " ,;=/-_", max_size=20)
)
services = st.sampled_from(SERVICES)
methods = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"])


@given(services, methods, paths, queries, headers_, st.binary(max_size=64))
def test_what_botocore_signs_is_accepted(service, method, path, query, headers, body) -> None:
    assert check(sign(service, method, path, query, headers, body)) == KEY


@given(services, methods, paths, queries, st.integers(1, 604800))
def test_what_botocore_presigns_is_accepted(service, method, path, query, expires) -> None:
    sent = sign(service, method, path, query, presign=expires)
    assert check(sent, now=NOW + timedelta(seconds=expires)) == KEY


@given(
    service=services,
    path=paths,
    query=queries,
    body=st.binary(max_size=32),
    presign=st.sampled_from([0, 600]),
    data=st.data(),
)
def test_any_tampering_is_refused(service, path, query, body, presign, data) -> None:
    sent = sign(service, "PUT", path, query, {"X-Amz-Target": "T.Op"}, body, presign=presign)
    changes = ["method", "path", "query", "host", "header", "extra", "scope", "signature", "date"]
    if not presign:
        changes.append("body")
    what = data.draw(st.sampled_from(changes))
    request = sent.request
    as_text = request.query.decode()  # type: ignore[union-attr]
    if what == "method":
        sent = replace(sent, request=replace(request, method="DELETE"))
    elif what == "path":
        sent = replace(sent, request=replace(request, raw_path=request.raw_path + "x"))
    elif what == "query":
        sent = replace(sent, request=replace(request, query=(as_text + "&x=1").lstrip("&")))
    elif what == "host":
        sent = replace(sent, request=replace(request, host="elsewhere:80"))
    elif what == "header":
        sent = _with_headers(sent, "X-Amz-Target", "T.Other")
    elif what == "extra":
        added = [*request.headers, ("x-amz-copy-source", "/bucket/key")]
        sent = replace(sent, request=replace(request, headers=added))
    elif what == "scope":
        sent = _everywhere(sent, "us-east-1", "eu-west-1")
    elif what == "signature":
        sent = _flip_signature(sent)
    elif what == "date":
        sent = _everywhere(sent, "20260304T050607Z", "20260304T050608Z")
    else:
        sent = replace(sent, body=sent.body + b"!")
    refused(sent)


def _with_headers(sent: Sent, name: str, value: str) -> Sent:
    changed = [(k, value if k.lower() == name.lower() else v) for k, v in sent.request.headers]
    return replace(sent, request=replace(sent.request, headers=changed))


def _everywhere(sent: Sent, old: str, new: str) -> Sent:
    request = sent.request
    return replace(
        sent,
        request=replace(
            request,
            query=request.query.decode().replace(old, new),  # type: ignore[union-attr]
            headers=[(name, value.replace(old, new)) for name, value in request.headers],
        ),
    )


def _flip_signature(sent: Sent) -> Sent:
    def flip(text: str) -> str:
        head, mark, tail = text.partition("Signature=")
        return head + mark + ("1" if tail[:1] == "0" else "0") + tail[1:] if mark else text

    request = sent.request
    return replace(
        sent,
        request=replace(
            request,
            query=flip(request.query.decode()),  # type: ignore[union-attr]
            headers=[(name, flip(value)) for name, value in request.headers],
        ),
    )


@given(st.text(max_size=200), st.text(max_size=60), services)
def test_rubbish_is_refused_and_never_crashes(authorization, date, service) -> None:
    headers = [("Authorization", f"AWS4-HMAC-SHA256 {authorization}"), ("X-Amz-Date", date)]
    rubbish = Sent(SignedRequest("POST", "h", "/", b"", headers), b"")
    assert refused(rubbish) in {"IncompleteSignature"} | UNKNOWN | MISMATCH


UNKNOWN = {"UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId"}
MISMATCH = {"InvalidSignatureException", "SignatureDoesNotMatch"}


@pytest.mark.parametrize(
    ("service", "unknown", "mismatch", "skewed"),
    [
        ("sagemaker", "UnrecognizedClientException", "InvalidSignatureException", "RequestExpired"),
        ("sts", "InvalidClientTokenId", "SignatureDoesNotMatch", "RequestExpired"),
        ("s3", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed"),
    ],
)
def test_codes_are_those_of_the_service(service, unknown, mismatch, skewed) -> None:
    assert refused(sign(service), keys={}) == unknown
    assert refused(sign(service, secret="other")) == mismatch
    for minutes in (-16, 16):
        assert refused(sign(service), now=NOW + timedelta(minutes=minutes)) == skewed
    for minutes in (-14, 14):
        assert check(sign(service), now=NOW + timedelta(minutes=minutes)) == KEY


def test_a_presigned_request_expires() -> None:
    sent = sign("s3", "GET", "/bucket/key", presign=60)
    assert refused(sent, now=NOW + timedelta(seconds=61)) == "AccessDenied"
    assert refused(sent, now=NOW - timedelta(minutes=16)) == "RequestTimeTooSkewed"


@pytest.mark.parametrize("expires", ["0", "-1", "604801", "x", "", "9" * 30, "1&X-Amz-Expires=2"])
def test_an_expiry_outside_the_rules_is_incomplete(expires: str) -> None:
    sent = _everywhere(sign("s3", "GET", presign=60), "Expires=60", f"Expires={expires}")
    assert refused(sent) == "IncompleteSignature"


def test_no_signature_at_all() -> None:
    bare = Sent(SignedRequest("GET", "h", "/", b"", []), b"")
    assert refused(bare) == "MissingAuthenticationToken"
    assert not is_signed(bare.request)
    assert is_signed(sign().request)
    assert is_signed(sign(presign=5).request)


def test_the_words_of_a_signature_in_a_value_are_no_signature() -> None:
    mention = SignedRequest("GET", "h", "/", b"q=X-Amz-Signature", [])
    assert not is_signed(mention)
    assert check(sign("s3", "GET", "/b", "prefix=X-Amz-Signature")) == KEY


def test_two_mechanisms_at_once_are_refused() -> None:
    sent = sign("s3", "GET")
    both = replace(sent, request=replace(sent.request, query=b"X-Amz-Signature=0"))
    assert refused(both) == "IncompleteSignature"


def test_unsigned_payload_is_for_s3_alone() -> None:
    options = {"context": {"payload_signing_enabled": False}}
    s3 = {
        "scheme": "https",
        "headers": {"Content-MD5": "x"},
        "context": {"has_streaming_input": True},
    }
    anything = hashlib.sha256(b"another body").hexdigest()
    sent = sign("s3", "PUT", **s3)  # type: ignore[arg-type]
    assert verify(sent.request, KEYS, now=NOW, body_sha256=anything).payload == "UNSIGNED-PAYLOAD"
    sent = sign("sagemaker", scheme="https", **options)  # type: ignore[arg-type]
    assert refused(sent) == "InvalidSignatureException"


def test_a_chunked_upload_keeps_its_marker() -> None:
    trailer = {"checksum": {"request_algorithm": {"in": "trailer"}}}
    sent = sign("s3", "PUT", "/b/k", context=trailer)
    verified = verify(sent.request, KEYS, now=NOW, body_sha256=None)
    assert verified.payload == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


def test_a_streaming_caller_gets_the_declared_hash() -> None:
    sent = sign("s3", "PUT", "/b/k", body=b"data")
    verified = verify(sent.request, KEYS, now=NOW, body_sha256=None)
    assert verified.payload == hashlib.sha256(b"data").hexdigest()
    with pytest.raises(AccessDeniedException):
        verify(sign("sagemaker").request, KEYS, now=NOW, body_sha256=None)


@pytest.mark.parametrize("path", ["/endpoints/../x", "//x", "/./x", "/x//y"])
def test_paths_that_two_readers_could_read_differently(path: str) -> None:
    assert refused(sign("sagemaker", path=path)) == "InvalidSignatureException"
    assert check(sign("s3", "GET", path)) == KEY


def test_a_verification_is_fast() -> None:
    sent = sign("sagemaker", headers={"X-Amz-Target": "SageMaker.CreateModel"})
    best = float("inf")
    for _ in range(200):
        started = time.perf_counter()
        check(sent)
        best = min(best, time.perf_counter() - started)
    assert best < 300e-6
