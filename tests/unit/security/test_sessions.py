"""Temporary credentials: whatever botocore signs with them is their key's, until they end."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest import mock
from urllib.parse import urlsplit

import pytest
from botocore.auth import HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.errors import AccessDeniedException
from ridgeline_service.security.sessions import _key_id, make_session, signer_of
from ridgeline_service.security.sigv2 import verify_sigv2
from ridgeline_service.security.sigv4 import SignedRequest, verify

KEYS = {"RLAKEXAMPLE": "secret", "RLAKOTHER": "other"}
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SESSION = make_session("RLAKEXAMPLE", "secret", NOW + timedelta(hours=1))
FORMS = {
    "header": (SigV4Auth, "sagemaker"),
    "s3 header": (S3SigV4Auth, "s3"),
    "query": (SigV4QueryAuth, "sagemaker"),
    "s3 query": (S3SigV4QueryAuth, "s3"),
}


def signed(form: str, session=SESSION) -> SignedRequest:
    """A GET of /b/k that botocore has signed."""
    kind, service = FORMS[form]
    request = AWSRequest(method="GET", url="http://127.0.0.1:8080/b/k")
    keys = Credentials(session.access_key_id, session.secret_access_key, session.token)
    at = NOW.replace(tzinfo=None)
    with mock.patch("botocore.auth.get_current_datetime", return_value=at):
        kind(keys, service, "us-east-1").add_auth(request)
    return sent(request)


def sent(request: AWSRequest) -> SignedRequest:
    parts = urlsplit(request.url)
    headers = [(name, str(value)) for name, value in request.headers.items()]
    return SignedRequest("GET", "127.0.0.1:8080", parts.path, parts.query.encode(), headers)


@pytest.mark.parametrize("form", FORMS)
def test_a_session_signs_for_its_key_until_it_ends(form):
    found = verify(signed(form), KEYS, now=NOW, body_sha256=None)
    assert found.signer.access_key_id == "RLAKEXAMPLE"
    late = signed(form, make_session("RLAKEXAMPLE", "secret", NOW))
    with pytest.raises(AccessDeniedException, match="expired: it was good until") as caught:
        verify(late, KEYS, now=NOW, body_sha256=None)
    assert caught.value.code == ("ExpiredToken" if "s3" in form else "ExpiredTokenException")


@pytest.mark.parametrize("form", FORMS)
def test_it_ends_with_its_key(form):
    for keys in ({"RLAKOTHER": "other"}, {"RLAKEXAMPLE": "another secret"}):
        with pytest.raises(AccessDeniedException):
            verify(signed(form), keys, now=NOW, body_sha256=None)


def test_a_token_of_another_session_or_none_is_no_key():
    other = make_session("RLAKEXAMPLE", "secret", NOW + timedelta(hours=2))
    assert signer_of(SESSION.access_key_id, other.token, KEYS, NOW) is None
    assert signer_of(SESSION.access_key_id, "", KEYS, NOW) is None
    assert signer_of("RLAKEXAMPLE", other.token, KEYS, NOW) == signer_of(
        "RLAKEXAMPLE", "", KEYS, NOW
    )


def test_links_of_the_old_signature_work_too():
    """boto3 writes these where no signature version is configured."""
    request = AWSRequest(method="GET", url="http://127.0.0.1:8080/b/k")
    keys = Credentials(SESSION.access_key_id, SESSION.secret_access_key, SESSION.token)
    with mock.patch("time.time", return_value=NOW.timestamp()):
        HmacV1QueryAuth(keys, expires=60).add_auth(request)
    link = replace(sent(request), headers=[])
    found = verify_sigv2(link, KEYS, bucket="", now=NOW)
    assert found.signer.access_key_id == "RLAKEXAMPLE"
    with pytest.raises(AccessDeniedException):
        verify_sigv2(link, {"RLAKEXAMPLE": "x"}, bucket="", now=NOW)


@given(st.text(), st.text(), st.integers(0, 10**14))
def test_no_text_is_a_session(access_key_id, text, until):
    """Nor is one whose key id is of its token, as a stranger can make it."""
    whose = base64.urlsafe_b64encode(text.encode("utf-8", "replace")).decode()
    for token in (text, f"RLST{text}", f"RLST.{whose}.{until}.{'0' * 24}."):
        for made in (access_key_id, _key_id(token)):
            assert signer_of(made, token, {}, NOW) is None


def test_a_session_tells_its_name_and_its_end():
    made = make_session("RLAKEXAMPLE", "secret", NOW + timedelta(hours=1), "a.b@c=d,e-f_g")
    signer = signer_of(made.access_key_id, made.token, KEYS, NOW)
    assert (signer.session, signer.until) == ("a.b@c=d,e-f_g", NOW + timedelta(hours=1))


@given(st.binary(max_size=40).map(lambda raw: raw.hex()))
def test_a_token_that_was_altered_is_no_session(tail):
    altered = SESSION.token[: -len(tail) or None] + tail
    if altered != SESSION.token:
        assert signer_of(SESSION.access_key_id, altered, KEYS, NOW) is None
