"""The XML documents that nanio's builders do not cover: both listings and small odds and ends."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote
from xml.sax.saxutils import escape

from nanio.errors import InvalidArgument, S3Error

from ridgeline_service.objects.index import Listing, StoredObject

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'

OWNER = "ridgeline"
OWNERS_ACL = (
    "AccessControlPolicy",
    f"<Owner><ID>{OWNER}</ID></Owner><AccessControlList><Grant>"
    '<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">'
    f"<ID>{OWNER}</ID></Grantee><Permission>FULL_CONTROL</Permission></Grant></AccessControlList>",
)
"""Root element and content of the ACL of everything: its owner may do all, and nobody else."""


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

    text = _encoder(url_encoded)
    parts = _head(bucket, listing, prefix, delimiter, limit, url_encoded)
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
        fields = _listed(stored, text)
        if owner:
            fields.append(_element("Owner", _element("ID", owner)))
        parts.append(_element("Contents", *fields))
    parts += [_element("CommonPrefixes", _element("Prefix", text(p))) for p in listing.prefixes]
    return whole("ListBucketResult", "".join(parts))


def list_versions(
    bucket: str,
    listing: Listing,
    *,
    prefix: str,
    delimiter: str,
    limit: int,
    after: str,
    url_encoded: bool,
) -> str:
    """ListObjectVersions: the only version of each object has the id ``null``."""
    text = _encoder(url_encoded)
    null = _element("VersionId", "null")
    parts = _head(bucket, listing, prefix, delimiter, limit, url_encoded)
    parts.append(_element("KeyMarker", text(after)))
    if listing.resume is not None:
        parts.append(_element("NextKeyMarker", text(listing.resume)))
        parts.append(_element("NextVersionIdMarker", "null"))
    owner = _element("Owner", _element("ID", OWNER))
    latest = _element("IsLatest", "true")
    parts += [
        _element("Version", *_listed(stored, text), null, latest, owner)
        for stored in listing.objects
    ]
    parts += [_element("CommonPrefixes", _element("Prefix", text(p))) for p in listing.prefixes]
    return whole("ListVersionsResult", "".join(parts))


def _head(
    bucket: str, listing: Listing, prefix: str, delimiter: str, limit: int, url_encoded: bool
) -> list[str]:
    """What listings of both kinds begin with."""
    text = _encoder(url_encoded)
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
    return parts


def location(region: str) -> str:
    """Empty for us-east-1, as S3 has it since its first days."""
    inner = "" if region == "us-east-1" else escape(region)
    return whole("LocationConstraint", inner)


def attributes(stored: StoredObject, names: set[str], checksums: Mapping[str, str]) -> str:
    """GetObjectAttributes' answer: those of ``names`` that the object has."""
    told = {
        # Without the quotes that it has everywhere else.
        "ETag": stored.etag,
        "Checksum": "".join(
            _element(f"Checksum{name.rpartition('-')[2].upper()}", value)
            for name, value in checksums.items()
        ),
        "ObjectParts": _element("PartsCount", str(len(stored.part_sizes)))
        if stored.part_sizes
        else "",
        "StorageClass": "STANDARD",
        "ObjectSize": str(stored.size),
    }
    inner = "".join(_element(name, text) for name, text in told.items() if name in names and text)
    return whole("GetObjectAttributesResponse", inner)


def copy_part(etag: str, modified: float) -> str:
    inner = _element("LastModified", iso(modified)) + _element("ETag", f"&quot;{etag}&quot;")
    return whole("CopyPartResult", inner)


def deleted(outcomes: Iterable[tuple[Mapping[str, str], S3Error | None]], *, quiet: bool) -> str:
    """Entries (``Key``, perhaps ``VersionId``) with why they were kept, or None; ``quiet`` leaves
    out those that are gone."""
    parts = []
    for entry, refusal in outcomes:
        named = "".join(
            _element(name, escape(entry[name])) for name in ("Key", "VersionId") if name in entry
        )
        if refusal is not None:
            why = _element("Code", refusal.code), _element("Message", escape(refusal.message_text))
            parts.append(_element("Error", named, *why))
        elif not quiet:
            parts.append(_element("Deleted", named))
    return whole("DeleteResult", "".join(parts))


def whole(root: str, inner: str) -> str:
    """A document of S3's namespace, from its root element and what is in it."""
    return f"{_HEAD}<{root} {_NAMESPACE}>{inner}</{root}>"


def _encoder(url_encoded: bool) -> Callable[[str], str]:
    return (lambda value: quote(value, safe="/")) if url_encoded else escape


def _listed(stored: StoredObject, text: Callable[[str], str]) -> list[str]:
    return [
        _element("Key", text(stored.key)),
        _element("LastModified", iso(stored.modified)),
        _element("ETag", f"&quot;{stored.etag}&quot;"),
        _element("Size", str(stored.size)),
        _element("StorageClass", "STANDARD"),
    ]


def _element(name: str, *inner: str) -> str:
    return f"<{name}>{''.join(inner)}</{name}>"
