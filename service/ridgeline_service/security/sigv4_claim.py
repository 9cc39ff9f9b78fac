"""What a request says about its own SigV4 signature: parsed, checked for form, scope and time.

Nothing here is trusted yet: whether the signature is right is ``sigv4``'s to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

from ridgeline_service.errors import AccessDeniedException

ALGORITHM = "AWS4-HMAC-SHA256"
_OF_SESSION = "X-Amz-Security-Token"
MAX_SKEW = timedelta(minutes=15)
MAX_EXPIRES_S = 7 * 24 * 3600

_TIMESTAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_QUERY_SERVICES = frozenset({"sts", "iam"})
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


def is_signed(request: SignedRequest) -> bool:
    """Whether the request carries a SigV4 signature of either form, valid or not."""
    return any(
        name.lower() == "authorization" and value.startswith("AWS4-")
        for name, value in request.headers
    ) or _is_presigned(_text(request.query))


@dataclass(frozen=True)
class Claim:
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

    @property
    def security_token(self) -> str:
        """Of temporary credentials; empty where there is none."""
        if self.expires_s is None:
            return ",".join(self.headers.get(_OF_SESSION.lower(), []))
        return query_value(self.query, _OF_SESSION)

    def check_scope(self) -> None:
        if self.timestamp[:8] != self.date:
            raise mismatch(
                self,
                f"The date in the credential scope ({self.date!r}) does not match the date of the "
                f"request ({self.timestamp[:8]!r}).",
            )
        signed = set(self.signed_headers)
        if "host" not in signed:
            raise incomplete("'host' must be among the signed headers.")
        for name in self.signed_headers:
            if name != "host" and name not in self.headers:
                raise mismatch(self, f"The signed header {name!r} is not in the request.")
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


def read_claim(request: SignedRequest) -> Claim:
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name.lower(), []).append(value)
    query = _text(request.query)
    authorization = headers.get("authorization", [])
    if not authorization and not _is_presigned(query):
        raise AccessDeniedException(
            "The request must contain a valid AWS access key ID and signature.",
            code="MissingAuthenticationToken",
        )
    if not authorization:
        return _query_claim(headers, query)
    if len(authorization) > 1 or _is_presigned(query):
        raise incomplete("Only one authentication mechanism may be used in a request.")
    return _header_claim(headers, query, authorization[0])


def _header_claim(headers: dict[str, list[str]], query: str, authorization: str) -> Claim:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise incomplete(f"Unsupported authorization {algorithm[:40]!r}: expected {ALGORITHM}.")
    fields: dict[str, str] = {}
    for part in rest.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name in fields:
            raise incomplete(f"Authorization header: cannot read {part.strip()[:80]!r}.")
        fields[name] = value
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not fields.get(name):
            raise incomplete(f"Authorization header requires '{name}' parameter.")
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


def _query_claim(headers: dict[str, list[str]], query: str) -> Claim:
    pairs = query.split("&")
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name in _QUERY_FIELDS:
            if name in found:
                raise incomplete(f"The query parameter {name} is given twice.")
            found[name] = unquote(value, errors="replace")
    for name in _QUERY_FIELDS:
        if not found.get(name):
            raise incomplete(f"A presigned request requires the query parameter {name}.")
    if found["X-Amz-Algorithm"] != ALGORITHM:
        raise incomplete(f"X-Amz-Algorithm must be {ALGORITHM}.")
    expires = found["X-Amz-Expires"]
    if not (expires.isascii() and expires.isdigit() and len(expires) < 9):
        raise incomplete("X-Amz-Expires must be a number of seconds.")
    if not 0 < int(expires) <= MAX_EXPIRES_S:
        raise incomplete(f"X-Amz-Expires must lie between 1 and {MAX_EXPIRES_S} seconds.")
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
) -> Claim:
    # The access key id comes first and might itself hold a slash; the scope is the last four.
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or not all(parts) or parts[4] != "aws4_request":
        raise incomplete(
            "Credential must have the form ACCESS_KEY_ID/DATE/REGION/SERVICE/aws4_request."
        )
    access_key_id, date, region, service, _ = parts
    names = tuple(sorted({name.lower() for name in signed_headers.split(";") if name}))
    return Claim(
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
        raise incomplete("Authorization requires one 'X-Amz-Date' or one 'Date' header.")
    try:
        signed_at = parsedate_to_datetime(date[0])
    except ValueError:
        raise incomplete(f"The Date header {date[0][:60]!r} is not a date.") from None
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
    raise incomplete(f"X-Amz-Date must have the form YYYYMMDDTHHMMSSZ, got {text[:40]!r}.")


def _text(query: bytes | str) -> str:
    return query.decode("latin-1") if isinstance(query, bytes) else query


def incomplete(message: str) -> AccessDeniedException:
    return AccessDeniedException(message, code="IncompleteSignature")


def mismatch_code(claim: Claim) -> str:
    if claim.is_s3 or claim.service in _QUERY_SERVICES:
        return "SignatureDoesNotMatch"
    return "InvalidSignatureException"


def mismatch(claim: Claim, message: str) -> AccessDeniedException:
    return AccessDeniedException(message, code=mismatch_code(claim))


def expired_token(claim: Claim, until: datetime) -> AccessDeniedException:
    queried = claim.is_s3 or claim.service in _QUERY_SERVICES
    return AccessDeniedException(
        f"The security token included in the request is expired: it was good until {until:%c} UTC.",
        code="ExpiredToken" if queried else "ExpiredTokenException",
    )


def query_value(query: str, name: str) -> str:
    """Of the first parameter of that name, decoded; empty where there is none."""
    found = (pair.partition("=") for pair in query.split("&"))
    return next((unquote(value, errors="replace") for key, _, value in found if key == name), "")


def unknown_key(claim: Claim) -> AccessDeniedException:
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


def _is_presigned(query: str) -> bool:
    return "X-Amz-Signature" in query and any(
        pair.partition("=")[0] == "X-Amz-Signature" for pair in query.split("&")
    )
