"""Verification of AWS Signature Version 4, in the header form and in the query (presigned) form.

The canonical request and the signature come from botocore's own signer classes, so that what
botocore signs is what we accept; this module adds what a verifier needs: strictness about
the payload and the comparison. It knows no HTTP server and no place where keys are kept.

Where it is stricter than AWS, on purpose: a path outside S3 must already be normalised, since a
signature over ``/a/../b`` equals one over ``/b`` while a router may see two different things; and
``UNSIGNED-PAYLOAD`` is an S3 privilege, so a control-plane body can never be swapped.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from botocore.auth import (
    EMPTY_SHA256_HASH,
    STREAMING_UNSIGNED_PAYLOAD_TRAILER,
    UNSIGNED_PAYLOAD,
    S3SigV4Auth,
    SigV4Auth,
)
from botocore.credentials import ReadOnlyCredentials
from botocore.utils import normalize_url_path

from ridgeline_service.errors import AccessDeniedException
from ridgeline_service.security.sessions import SessionExpired, Signer, signer_of
from ridgeline_service.security.sigv4_claim import (
    Claim,
    SignedRequest,
    expired_token,
    incomplete,
    is_signed,
    mismatch,
    mismatch_code,
    read_claim,
    unknown_key,
)

__all__ = [
    "Admitted",
    "Claim",
    "SignedRequest",
    "Verified",
    "admit",
    "is_signed",
    "prove",
    "signing_key",
    "verify",
]

_HEX_SHA256 = re.compile(r"[0-9a-f]{64}")
_STREAMING_PAYLOADS = frozenset(
    {
        STREAMING_UNSIGNED_PAYLOAD_TRAILER,
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    }
)


@dataclass(frozen=True)
class Verified:
    """Who signed, for which scope, and what was signed about the body.

    ``payload`` is the body's SHA-256 in hex, ``UNSIGNED-PAYLOAD`` or a ``STREAMING-*`` marker; a
    reader of ``STREAMING-AWS4-*`` bodies needs ``signature`` as the seed of the chunk signatures.
    """

    signer: Signer
    service: str
    region: str
    signed_at: datetime
    payload: str
    signature: str
    presigned: bool


@dataclass(frozen=True)
class Admitted:
    """A claim of a known key, not proved yet."""

    claim: Claim
    signer: Signer


def verify(
    request: SignedRequest,
    credentials: Mapping[str, str],
    *,
    now: datetime,
    body_sha256: Callable[[], str] | str | None,
) -> Verified:
    """Verify the signature and say whose it is. ``credentials`` maps access key ids to secrets.

    ``body_sha256`` is the hex SHA-256 of the body that arrived, or a function that computes it
    (called only when it is needed). ``None`` means that the caller reads the body as a stream and
    compares it with ``Verified.payload`` itself; that needs X-Amz-Content-SHA256, as S3 has it.

    Raises AccessDeniedException whose ``code`` is AWS's for the fault and the service.
    """
    return prove(admit(request, credentials, now=now), request, body_sha256)


def admit(request: SignedRequest, credentials: Mapping[str, str], *, now: datetime) -> Admitted:
    """What can be checked before the body is here: form, scope, time, and that the key exists.

    The claim is not proved by that, but no stranger's body has to be waited for. Raises as
    ``verify`` does.
    """
    claim = read_claim(request)
    claim.check_scope()
    claim.check_time(now)
    try:
        signer = signer_of(claim.access_key_id, claim.security_token, credentials, now)
    except SessionExpired as error:
        raise expired_token(claim, *error.args) from None
    if signer is None:
        raise unknown_key(claim)
    return Admitted(claim, signer)


def prove(
    admitted: Admitted, request: SignedRequest, body_sha256: Callable[[], str] | str | None
) -> Verified:
    """The second half of ``verify``: the signature itself."""
    claim, signer = admitted.claim, admitted.signer
    payload = _payload(claim, request, body_sha256)
    expected = _sign(claim, request, signer.secret, payload)
    if not hmac.compare_digest(expected.encode(), claim.signature.encode("utf-8", "replace")):
        raise mismatch(
            claim,
            "The request signature we calculated does not match the signature you provided. "
            "Check your secret access key, and that nothing on the way changed the request.",
        )
    return Verified(
        signer=signer,
        service=claim.service,
        region=claim.region,
        signed_at=claim.signed_at,
        payload=payload,
        signature=claim.signature,
        presigned=claim.expires_s is not None,
    )


@lru_cache(maxsize=256)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The key that signs on one day in one scope: clients sign thousands of requests with it."""
    key = b"AWS4" + secret.encode()
    for item in (date, region, service, "aws4_request"):
        key = hmac.digest(key, item.encode(), "sha256")
    return key


def _payload(
    claim: Claim, request: SignedRequest, body_sha256: Callable[[], str] | str | None
) -> str:
    """The payload line of the canonical request, after comparing it with the real body."""
    declared = claim.headers.get("x-amz-content-sha256", [])
    if claim.expires_s is not None and "x-amz-content-sha256" not in claim.signed_headers:
        declared = []
        if claim.is_s3:
            return str(UNSIGNED_PAYLOAD)
    if len(declared) > 1:
        raise incomplete("X-Amz-Content-SHA256 is given twice.")
    if declared and not _HEX_SHA256.fullmatch(declared[0]):
        if claim.is_s3 and (declared[0] == UNSIGNED_PAYLOAD or declared[0] in _STREAMING_PAYLOADS):
            return declared[0]
        raise mismatch(claim, f"X-Amz-Content-SHA256 {declared[0][:80]!r} is not supported here.")
    if body_sha256 is None:
        if declared:
            return declared[0]
        if request.method in ("GET", "HEAD", "DELETE"):
            return str(EMPTY_SHA256_HASH)
        raise mismatch(claim, "The header X-Amz-Content-SHA256 is missing.")
    actual = body_sha256() if callable(body_sha256) else body_sha256
    if declared and not hmac.compare_digest(declared[0].encode(), actual.encode()):
        raise AccessDeniedException(
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
            code="XAmzContentSHA256Mismatch" if claim.is_s3 else mismatch_code(claim),
        )
    return actual


class _Headers(dict[str, list[str]]):
    """The two methods that botocore's canonical_headers asks of its header container."""

    def get_all(self, name: str) -> list[str]:
        return self[name]


@dataclass
class _Timed:
    """The part of botocore's AWSRequest that string_to_sign looks at."""

    context: dict[str, str]


@dataclass
class _Query:
    query: str


def _sign(claim: Claim, request: SignedRequest, secret: str, payload: str) -> str:
    keys = ReadOnlyCredentials(claim.access_key_id, secret, None)
    kind = S3SigV4Auth if claim.is_s3 else SigV4Auth
    signer = kind(keys, claim.service, claim.region)
    if not claim.is_s3 and normalize_url_path(request.raw_path) != (request.raw_path or "/"):
        raise mismatch(claim, "The path has empty or dot segments: send it normalised.")
    headers = _Headers(
        {
            name: [request.host] if name == "host" else claim.headers[name]
            for name in claim.signed_headers
        }
    )
    canonical = "\n".join(
        (
            request.method,
            signer._normalize_url_path(request.raw_path),
            signer._canonical_query_string_url(_Query(claim.query)),
            signer.canonical_headers(headers) + "\n",
            signer.signed_headers(headers),
            payload,
        )
    )
    key = signing_key(secret, claim.timestamp[:8], claim.region, claim.service)
    try:
        to_sign = signer.string_to_sign(_Timed({"timestamp": claim.timestamp}), canonical)
        return hmac.digest(key, to_sign.encode(), "sha256").hex()
    except UnicodeEncodeError:
        raise mismatch(claim, "The request holds text that no UTF-8 signer can sign.") from None
