"""The XML documents that nanio's builders do not cover: both listings and small odds and ends."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import quote
from xml.sax.saxutils import escape

from nanio.errors import InvalidArgument

from ridgeline_service.objects.index import Listing

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def encode_token(resume: str) -> str:
    return base64.urlsafe_b64encode(resume.encode()).decode()


def decode_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except ValueError:
        raise InvalidArgument("The continuation token provided is incorrect") from None


def iso(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def list_objects(
    bucket: str,
    listing: Listing,
    *,
    version: int,
    prefix: str,
    delimiter: str,
    limit: int,
    after: str,
    token: str,
    url_encoded: bool,
    owner: str,
) -> str:
    """ListObjects (``version`` 1, ``after`` is the marker) or ListObjectsV2."""

    def text(value: str) -> str:
        return quote(value, safe="/") if url_encoded else escape(value)

    parts = [
        _element("Name", escape(bucket)),
        _element("Prefix", text(prefix)),
        _element("MaxKeys", str(limit)),
        _element("IsTruncated", "true" if listing.resume is not None else "false"),
    ]
    if delimiter:
        parts.append(_element("Delimiter", text(delimiter)))
    if url_encoded:
        parts.append(_element("EncodingType", "url"))
    if version == 1:
        parts.append(_element("Marker", text(after)))
        if listing.resume is not None:
            parts.append(_element("NextMarker", text(listing.resume)))
    else:
        parts.append(_element("KeyCount", str(len(listing.objects) + len(listing.prefixes))))
        if after:
            parts.append(_element("StartAfter", text(after)))
        if token:
            parts.append(_element("ContinuationToken", escape(token)))
        if listing.resume is not None:
            parts.append(_element("NextContinuationToken", encode_token(listing.resume)))
    for stored in listing.objects:
        fields = [
            _element("Key", text(stored.key)),
            _element("LastModified", iso(stored.modified)),
            _element("ETag", f"&quot;{stored.etag}&quot;"),
            _element("Size", str(stored.size)),
            _element("StorageClass", "STANDARD"),
        ]
        if owner:
            fields.append(_element("Owner", _element("ID", owner)))
        parts.append(_element("Contents", *fields))
    parts += [_element("CommonPrefixes", _element("Prefix", text(p))) for p in listing.prefixes]
    return f"{_HEAD}<ListBucketResult {_NAMESPACE}>{''.join(parts)}</ListBucketResult>"


def location(region: str) -> str:
    """Empty for us-east-1, as S3 has it since its first days."""
    inner = "" if region == "us-east-1" else escape(region)
    return f"{_HEAD}<LocationConstraint {_NAMESPACE}>{inner}</LocationConstraint>"


def copy_part(etag: str, modified: float) -> str:
    inner = _element("LastModified", iso(modified)) + _element("ETag", f"&quot;{etag}&quot;")
    return f"{_HEAD}<CopyPartResult {_NAMESPACE}>{inner}</CopyPartResult>"


def deleted(keys: Iterable[str]) -> str:
    inner = "".join(_element("Deleted", _element("Key", escape(key))) for key in keys)
    return f"{_HEAD}<DeleteResult {_NAMESPACE}>{inner}</DeleteResult>"


def _element(name: str, *inner: str) -> str:
    return f"<{name}>{''.join(inner)}</{name}>"
