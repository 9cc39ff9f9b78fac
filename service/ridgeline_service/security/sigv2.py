"""Verification of S3's Signature Version 2 in the query form, and of no other form of it.

AWS has retired it, but boto3 still writes it when ``generate_presigned_url`` is called in a region
that knew it (us-east-1 among them) and no signature version is configured. The string to sign is
botocore's own. What the signature does not cover (the host, parameters of a listing) is as
free here as it was at AWS; sub-resources and ``x-amz-`` headers are covered.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import SplitResult, unquote

from botocore.auth import UNSIGNED_PAYLOAD, HmacV1QueryAuth
from botocore.compat import HTTPHeaders
from botocore.credentials import ReadOnlyCredentials

from ridgeline_service.errors import AccessDeniedException
from ridgeline_service.security.sessions import SessionExpired, signer_of
from ridgeline_service.security.sigv4 import SignedRequest, Verified
from ridgeline_service.security.sigv4_claim import query_value

_OF_SESSION = "x-amz-security-token"
SIGV2_FIELDS = ("AWSAccessKeyId", "Signature", "Expires")


def is_sigv2(query: bytes) -> bool:
    """Whether the query carries such a signature, valid or not."""
    if b"AWSAccessKeyId=" not in query:
        return False
    names = {pair.partition(b"=")[0] for pair in query.split(b"&")}
    return names.issuperset(field.encode() for field in SIGV2_FIELDS)


def verify_sigv2(
    request: SignedRequest, credentials: Mapping[str, str], *, bucket: str, now: datetime
) -> Verified:
    """Say whose link it is. ``bucket`` is the one that the host names, empty in path style.

    Raises AccessDeniedException with S3's codes.
    """
    query = request.query.decode("latin-1") if isinstance(request.query, bytes) else request.query
    key_id, signature, expires = _fields(query)
    if any(name.lower() == "authorization" for name, _ in request.headers):
        raise _denied("Only one authentication mechanism may be used in a request.")
    if now.timestamp() > expires:
        raise AccessDeniedException("Request has expired", code="AccessDenied")
    token = query_value(query, _OF_SESSION)
    try:
        signer = signer_of(key_id, token, credentials, now)
    except SessionExpired as error:
        raise AccessDeniedException(
            "The provided token has expired.", code="ExpiredToken"
        ) from error
    if signer is None:
        raise AccessDeniedException(
            "The AWS access key ID you provided does not exist in our records.",
            code="InvalidAccessKeyId",
        )
    expected = _sign(request, query, key_id, signer.secret, bucket, expires)
    if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
        raise AccessDeniedException(
            "The request signature we calculated does not match the signature you provided. "
            "Check your secret access key, and send the headers that the link was made for.",
            code="SignatureDoesNotMatch",
        )
    return Verified(
        signer=signer,
        service="s3",
        region="",
        signed_at=now.astimezone(UTC),
        payload=str(UNSIGNED_PAYLOAD),
        signature=signature,
        presigned=True,
    )


def _fields(query: str) -> tuple[str, str, int]:
    found: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if "%" in name or "+" in name:
            # botocore reads names as they are written: ``%75ploads`` would escape the signature
            # and still be ``uploads`` to whoever decodes it.
            raise _denied(f"The name of the query parameter {name[:40]!r} must not be encoded.")
        if name in SIGV2_FIELDS:
            if name in found:
                raise _denied(f"The query parameter {name} is given twice.")
            found[name] = unquote(value, errors="replace")
    missing = [name for name in SIGV2_FIELDS if not found.get(name)]
    if missing:
        raise _denied(f"A presigned link requires the query parameter {missing[0]}.")
    expires = found["Expires"]
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
        raise _denied("Expires must be the end of the link's life, in seconds since the epoch.")
    return found["AWSAccessKeyId"], found["Signature"], int(expires)


def _denied(message: str) -> AccessDeniedException:
    return AccessDeniedException(message, code="AccessDenied")


class _Signer(HmacV1QueryAuth):  # type: ignore[misc]
    """botocore's signer, with the end of the link's life given and not counted from now."""

    def _get_date(self) -> str:
        return str(self._expires)


def _sign(
    request: SignedRequest, query: str, key_id: str, secret: str, bucket: str, expires: int
) -> str:
    headers = HTTPHeaders()
    for name, value in request.headers:
        headers.add_header(name, value)
    token = query_value(query, _OF_SESSION)
    if token:
        headers[_OF_SESSION] = (
            token  # botocore signs it as a header, and then sends it in the query
        )
    signer = _Signer(ReadOnlyCredentials(key_id, secret, None), expires)
    path = f"/{bucket}{request.raw_path}" if bucket else request.raw_path
    if path != "/" and path.count("/") == 1:
        path += "/"  # a bucket alone is signed with the slash that its path may lack
    split = SplitResult("", request.host, path, query, "")
    return str(signer.get_signature(request.method, split, headers))
