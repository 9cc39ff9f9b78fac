"""Verification of AWS Signature Version 4, in the header form and in the query (presigned) form.

The canonical request and the signature come from botocore's own signer classes, so that what
botocore signs is what we accept; this module adds what a verifier needs: parsing, strictness,
clock skew and AWS's error codes. It knows no HTTP server and no place where keys are kept.

Where it is stricter than AWS, on purpose: a path outside S3 must already be normalised, since a
signature over ``/a/../b`` equals one over ``/b`` while a router may see two different things; and
``UNSIGNED-PAYLOAD`` is an S3 privilege, so a control-plane body can never be swapped.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

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

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_SKEW = timedelta(minutes=15)
MAX_EXPIRES_S = 7 * 24 * 3600

_TIMESTAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}")
_QUERY_SERVICES = frozenset({"sts", "iam"})
_STREAMING_PAYLOADS = frozenset(
    {
        STREAMING_UNSIGNED_PAYLOAD_TRAILER,
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    }
)
_QUERY_FIELDS = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
)


@dataclass(frozen=True)
class SignedRequest:
    """A request as it came over the wire: nothing decoded, nothing normalised.

    ``host`` is the Host header; ``raw_path`` is still percent-encoded and has no query;
    ``query`` is what followed the question mark, or empty.
    """

    method: str
    host: str
    raw_path: str
    query: bytes | str
    headers: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Verified:
    """Who signed, for which scope, and what was signed about the body.

    ``payload`` is the body's SHA-256 in hex, ``UNSIGNED-PAYLOAD`` or a ``STREAMING-*`` marker; a
    reader of ``STREAMING-AWS4-*`` bodies needs ``signature`` as the seed of the chunk signatures.
    """

    access_key_id: str
    service: str
    region: str
    signed_at: datetime
    payload: str
    signature: str
    presigned: bool


def is_signed(request: SignedRequest) -> bool:
    """Whether the request carries a SigV4 signature of either form, valid or not."""
    return any(
        name.lower() == "authorization" and value.startswith("AWS4-")
        for name, value in request.headers
    ) or "X-Amz-Signature" in _text(request.query)


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
    claim = _read_claim(request)
    claim.check_scope()
    claim.check_time(now)
    secret = credentials.get(claim.access_key_id)
    if secret is None:
        raise _unknown_key(claim)
    payload = _payload(claim, request, body_sha256)
    expected = _sign(claim, request, secret, payload)
    if not hmac.compare_digest(expected.encode(), claim.signature.encode("utf-8", "replace")):
        raise _mismatch(
            claim,
            "The request signature we calculated does not match the signature you provided. "
            "Check your secret access key, and that nothing on the way changed the request.",
        )
    return Verified(
        access_key_id=claim.access_key_id,
        service=claim.service,
        region=claim.region,
        signed_at=claim.signed_at,
        payload=payload,
        signature=claim.signature,
        presigned=claim.expires_s is not None,
    )


@dataclass(frozen=True)
class _Claim:
    """What a request says about its own signature, syntax checked and nothing more."""

    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    timestamp: str
    signed_at: datetime
    expires_s: int | None
    headers: dict[str, list[str]]
    query: str

    @property
    def is_s3(self) -> bool:
        return self.service in ("s3", "s3-object-lambda")

    def check_scope(self) -> None:
        if self.timestamp[:8] != self.date:
            raise _mismatch(
                self,
                f"The date in the credential scope ({self.date!r}) does not match the date of the "
                f"request ({self.timestamp[:8]!r}).",
            )
        signed = set(self.signed_headers)
        if "host" not in signed:
            raise _incomplete("'host' must be among the signed headers.")
        for name in self.signed_headers:
            if name != "host" and name not in self.headers:
                raise _mismatch(self, f"The signed header {name!r} is not in the request.")
        for name in self.headers:
            # What AWS calls "headers present in the request which were not signed": an added
            # x-amz-copy-source or x-amz-target would change what a captured request does.
            if name.startswith("x-amz-") and name not in signed:
                if self.expires_s is not None and name == "x-amz-content-sha256":
                    continue
                raise AccessDeniedException(
                    f"There were headers present in the request which were not signed: {name}",
                    code="AccessDenied" if self.is_s3 else "InvalidSignatureException",
                )

    def check_time(self, now: datetime) -> None:
        if self.signed_at - now > MAX_SKEW:
            raise self._skewed(now)
        if self.expires_s is None:
            if now - self.signed_at > MAX_SKEW:
                raise self._skewed(now)
        elif now - self.signed_at > timedelta(seconds=self.expires_s):
            raise AccessDeniedException(
                f"Request has expired: it was signed at {self.timestamp} for {self.expires_s} s.",
                code="AccessDenied" if self.is_s3 else "RequestExpired",
            )

    def _skewed(self, now: datetime) -> AccessDeniedException:
        return AccessDeniedException(
            "The difference between the request time and the current time is too large: the "
            f"request says {self.timestamp}, the service's clock says {now:%Y%m%dT%H%M%SZ}.",
            code="RequestTimeTooSkewed" if self.is_s3 else "RequestExpired",
        )


def _read_claim(request: SignedRequest) -> _Claim:
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name.lower(), []).append(value)
    query = _text(request.query)
    authorization = headers.get("authorization", [])
    if not authorization and "X-Amz-Signature" not in query:
        raise AccessDeniedException(
            "The request must contain a valid AWS access key ID and signature.",
            code="MissingAuthenticationToken",
        )
    if not authorization:
        return _query_claim(headers, query)
    if len(authorization) > 1 or "X-Amz-Signature" in query:
        raise _incomplete("Only one authentication mechanism may be used in a request.")
    return _header_claim(headers, query, authorization[0])


def _header_claim(headers: dict[str, list[str]], query: str, authorization: str) -> _Claim:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete(f"Unsupported authorization {algorithm[:40]!r}: expected {ALGORITHM}.")
    fields: dict[str, str] = {}
    for part in rest.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name in fields:
            raise _incomplete(f"Authorization header: cannot read {part.strip()[:80]!r}.")
        fields[name] = value
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not fields.get(name):
            raise _incomplete(f"Authorization header requires '{name}' parameter.")
    timestamp, signed_at = _header_time(headers)
    return _claim(
        fields["Credential"],
        fields["SignedHeaders"],
        fields["Signature"],
        timestamp=timestamp,
        signed_at=signed_at,
        expires_s=None,
        headers=headers,
        query=query,
    )


def _query_claim(headers: dict[str, list[str]], query: str) -> _Claim:
    pairs = query.split("&")
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name in _QUERY_FIELDS:
            if name in found:
                raise _incomplete(f"The query parameter {name} is given twice.")
            found[name] = unquote(value, errors="replace")
    for name in _QUERY_FIELDS:
        if not found.get(name):
            raise _incomplete(f"A presigned request requires the query parameter {name}.")
    if found["X-Amz-Algorithm"] != ALGORITHM:
        raise _incomplete(f"X-Amz-Algorithm must be {ALGORITHM}.")
    expires = found["X-Amz-Expires"]
    if not (expires.isascii() and expires.isdigit() and len(expires) < 9):
        raise _incomplete("X-Amz-Expires must be a number of seconds.")
    if not 0 < int(expires) <= MAX_EXPIRES_S:
        raise _incomplete(f"X-Amz-Expires must lie between 1 and {MAX_EXPIRES_S} seconds.")
    return _claim(
        found["X-Amz-Credential"],
        found["X-Amz-SignedHeaders"],
        found["X-Amz-Signature"],
        timestamp=found["X-Amz-Date"],
        signed_at=_parse_timestamp(found["X-Amz-Date"]),
        expires_s=int(expires),
        headers=headers,
        query="&".join(pair for pair in pairs if pair.partition("=")[0] != "X-Amz-Signature"),
    )


def _claim(
    credential: str,
    signed_headers: str,
    signature: str,
    *,
    timestamp: str,
    signed_at: datetime,
    expires_s: int | None,
    headers: dict[str, list[str]],
    query: str,
) -> _Claim:
    # The access key id comes first and might itself hold a slash; the scope is the last four.
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or not all(parts) or parts[4] != "aws4_request":
        raise _incomplete(
            "Credential must have the form ACCESS_KEY_ID/DATE/REGION/SERVICE/aws4_request."
        )
    access_key_id, date, region, service, _ = parts
    names = tuple(sorted({name.lower() for name in signed_headers.split(";") if name}))
    return _Claim(
        access_key_id=access_key_id,
        date=date,
        region=region,
        service=service,
        signed_headers=names,
        signature=signature,
        timestamp=timestamp,
        signed_at=signed_at,
        expires_s=expires_s,
        headers=headers,
        query=query,
    )


def _header_time(headers: Mapping[str, Sequence[str]]) -> tuple[str, datetime]:
    amz = headers.get("x-amz-date", [])
    if len(amz) == 1:
        return amz[0], _parse_timestamp(amz[0])
    date = headers.get("date", [])
    if amz or len(date) != 1:
        raise _incomplete("Authorization requires one 'X-Amz-Date' or one 'Date' header.")
    try:
        signed_at = parsedate_to_datetime(date[0])
    except ValueError:
        raise _incomplete(f"The Date header {date[0][:60]!r} is not a date.") from None
    signed_at = signed_at.replace(tzinfo=signed_at.tzinfo or UTC).astimezone(UTC)
    return signed_at.strftime("%Y%m%dT%H%M%SZ"), signed_at


def _parse_timestamp(text: str) -> datetime:
    if _TIMESTAMP.fullmatch(text):
        try:
            return datetime(
                int(text[:4]),
                int(text[4:6]),
                int(text[6:8]),
                int(text[9:11]),
                int(text[11:13]),
                int(text[13:15]),
                tzinfo=UTC,
            )
        except ValueError:
            pass  # thirteenth month and the like: same answer as for any other ill-formed date
    raise _incomplete(f"X-Amz-Date must have the form YYYYMMDDTHHMMSSZ, got {text[:40]!r}.")


def _payload(
    claim: _Claim, request: SignedRequest, body_sha256: Callable[[], str] | str | None
) -> str:
    """The payload line of the canonical request, after comparing it with the real body."""
    declared = claim.headers.get("x-amz-content-sha256", [])
    if claim.expires_s is not None and "x-amz-content-sha256" not in claim.signed_headers:
        declared = []
        if claim.is_s3:
            return str(UNSIGNED_PAYLOAD)
    if len(declared) > 1:
        raise _incomplete("X-Amz-Content-SHA256 is given twice.")
    if declared and not _HEX_SHA256.fullmatch(declared[0]):
        if claim.is_s3 and (declared[0] == UNSIGNED_PAYLOAD or declared[0] in _STREAMING_PAYLOADS):
            return declared[0]
        raise _mismatch(claim, f"X-Amz-Content-SHA256 {declared[0][:80]!r} is not supported here.")
    if body_sha256 is None:
        if declared:
            return declared[0]
        if request.method in ("GET", "HEAD", "DELETE"):
            return str(EMPTY_SHA256_HASH)
        raise _mismatch(claim, "The header X-Amz-Content-SHA256 is missing.")
    actual = body_sha256() if callable(body_sha256) else body_sha256
    if declared and not hmac.compare_digest(declared[0].encode(), actual.encode()):
        raise AccessDeniedException(
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
            code="XAmzContentSHA256Mismatch" if claim.is_s3 else _mismatch_code(claim),
        )
    return actual


class _Headers(dict[str, list[str]]):
    """The two methods that botocore's canonical_headers asks of its header container."""

    def get_all(self, name: str) -> list[str]:
        return self[name]


@dataclass
class _Timed:
    """The part of botocore's AWSRequest that string_to_sign and signature look at."""

    context: dict[str, str]


@dataclass
class _Query:
    query: str


def _sign(claim: _Claim, request: SignedRequest, secret: str, payload: str) -> str:
    keys = ReadOnlyCredentials(claim.access_key_id, secret, None)
    kind = S3SigV4Auth if claim.is_s3 else SigV4Auth
    signer = kind(keys, claim.service, claim.region)
    if not claim.is_s3 and normalize_url_path(request.raw_path) != (request.raw_path or "/"):
        raise _mismatch(claim, "The path has empty or dot segments: send it normalised.")
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
    timed = _Timed({"timestamp": claim.timestamp})
    try:
        to_sign = signer.string_to_sign(timed, canonical)
        return str(signer.signature(to_sign, timed))
    except UnicodeEncodeError:
        raise _mismatch(claim, "The request holds text that no UTF-8 signer can sign.") from None


def _text(query: bytes | str) -> str:
    return query.decode("latin-1") if isinstance(query, bytes) else query


def _incomplete(message: str) -> AccessDeniedException:
    return AccessDeniedException(message, code="IncompleteSignature")


def _mismatch_code(claim: _Claim) -> str:
    if claim.is_s3 or claim.service in _QUERY_SERVICES:
        return "SignatureDoesNotMatch"
    return "InvalidSignatureException"


def _mismatch(claim: _Claim, message: str) -> AccessDeniedException:
    return AccessDeniedException(message, code=_mismatch_code(claim))


def _unknown_key(claim: _Claim) -> AccessDeniedException:
    if claim.is_s3:
        return AccessDeniedException(
            "The AWS access key ID you provided does not exist in our records.",
            code="InvalidAccessKeyId",
        )
    return AccessDeniedException(
        "The security token included in the request is invalid: "
        f"no key {claim.access_key_id!r} is known here.",
        code="InvalidClientTokenId"
        if claim.service in _QUERY_SERVICES
        else "UnrecognizedClientException",
    )
