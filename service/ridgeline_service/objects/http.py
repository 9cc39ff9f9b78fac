"""What an S3 request and its answer are inside the store: parsed and typed, of no framework."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qsl, unquote_to_bytes

from nanio.errors import InvalidArgument, S3Error

from ridgeline_service.objects.index import StoredObject
from ridgeline_service.objects.payload import Payload

_VIRTUAL_HOST = re.compile(
    r"(?P<bucket>.+)\.(?:s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?|localhost)"
)
# Of a presigned request: its signature, and what is said of a body that was not there yet when the
# link was made. AWS's SDK for JavaScript signs the checksum of an empty one.
_STAYS_IN_QUERY = re.compile(
    r"x-amz-(?:algorithm|credential|date|expires|security-token|signature|signedheaders"
    r"|content-sha256|decoded-content-length|sdk-checksum-algorithm|trailer|checksum-.*)"
)
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")

# Kept with an object and answered with it. Content-Type is not here: it has a default.
_KEPT = ("cache-control", "content-disposition", "content-language", "expires")
_MAX_USER_METADATA = 2048
OVERRIDES = frozenset(
    (
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
    )
)
"""What a request may say of its answer's headers. SigV2 covers these spellings and no others: any
other name can be added to such a link by whoever holds it, and is ignored."""
CHECKSUM_PREFIX = "x-amz-checksum-"


class InvalidUri(S3Error):  # type: ignore[misc]
    code = "InvalidURI"
    message = "Couldn't parse the specified URI."
    http_status = 400


class InvalidRange(S3Error):  # type: ignore[misc]
    code = "InvalidRange"
    message = "The requested range is not satisfiable"
    http_status = 416


@dataclass(frozen=True)
class S3Request:
    """``bucket`` and ``key`` are decoded, from either addressing style; headers lower-case."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    payload: Payload


@dataclass(frozen=True)
class S3Response:
    """``body`` is whole; or ``content`` is the object whose bytes ``start`` to ``end`` (inclusive)
    are the body, and ``headers`` tell its length."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    content: StoredObject | None = None
    start: int = 0
    end: int = -1


def xml(document: str | bytes, status: int = 200) -> S3Response:
    raw = document.encode() if isinstance(document, str) else document
    return S3Response(status, {"content-type": "application/xml"}, raw)


def address(host: str, raw_path: str) -> tuple[str, str]:
    """Bucket and key of a request, from its host name (virtual-host style) or its path."""
    try:
        path = unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        raise InvalidUri() from None
    named = host_bucket(host)
    if named:
        return named, path.removeprefix("/")
    bucket, _, key = path.removeprefix("/").partition("/")
    return bucket, key


def host_bucket(host: str) -> str:
    """The bucket that a host name names (virtual-host style), or nothing."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    virtual = _VIRTUAL_HOST.fullmatch(name.lower())
    return virtual["bucket"] if virtual else ""


def parse_query(raw: bytes) -> dict[str, str]:
    return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True))


def presigned_headers(query: Mapping[str, str]) -> dict[str, str]:
    """Headers that a signer of links has put into the query, as AWS's SDK for JavaScript does with
    all ``x-amz-`` ones. Raises InvalidArgument for what no header can hold."""
    found = {}
    for written, value in query.items():
        name = written.lower()
        if not name.startswith("x-amz-") or _STAYS_IN_QUERY.fullmatch(name):
            continue
        # Headers are bytes, read as Latin-1 here and answered so.
        read = value.encode().decode("latin-1")
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(read):
            raise InvalidArgument(f"The query parameter {written[:80]!r} cannot be a header.")
        found[name] = read
    return found


def require_current(fields: Mapping[str, str], name: str = "versionId") -> None:
    """Raises InvalidArgument unless the version is the one there is: buckets have no versions."""
    version = fields.get(name, "null")
    if version != "null":
        raise InvalidArgument(
            f"Invalid version id specified: {version!r}. Buckets here are not versioned; leave it "
            "out for the current object."
        )


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What a stored object answers with later: its type, encoding and the user's metadata."""
    kept = {"content-type": headers.get("content-type") or "binary/octet-stream"}
    encodings = [item.strip() for item in headers.get("content-encoding", "").split(",")]
    encoding = ",".join(item for item in encodings if item not in ("", "aws-chunked"))
    if encoding:
        kept["content-encoding"] = encoding
    kept.update({name: headers[name] for name in _KEPT if name in headers})
    metadata = {name: value for name, value in headers.items() if name.startswith("x-amz-meta-")}
    if sum(len(name) - 11 + len(value) for name, value in metadata.items()) > _MAX_USER_METADATA:
        raise InvalidArgument(f"User metadata may have up to {_MAX_USER_METADATA} bytes")
    return kept | metadata


def object_headers(stored: StoredObject, query: Mapping[str, str]) -> dict[str, str]:
    """Headers of GET and HEAD, which the query may override. Raises InvalidArgument for what no
    header can hold."""
    headers = {
        name: value
        for name, value in stored.headers.items()
        if not name.startswith(CHECKSUM_PREFIX)
    }
    headers["etag"] = f'"{stored.etag}"'
    headers["last-modified"] = http_date(stored.modified)
    headers["accept-ranges"] = "bytes"
    for parameter in OVERRIDES & query.keys():
        if not _HEADER_VALUE.fullmatch(query[parameter]):
            raise InvalidArgument(
                f"The value of {parameter} cannot be a header: it may have printable characters of "
                "ISO-8859-1."
            )
        headers[parameter.removeprefix("response-")] = query[parameter]
    return headers


def http_date(timestamp: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(timestamp), UTC), usegmt=True)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte asked for, or None for all. A header that cannot be read, or whose
    last byte is before its first, asks for all."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last), size - 1) if first and last else size - 1
    if start > end:
        raise InvalidRange()
    return start, end
