"""GET and HEAD of an object: all of it, a range of bytes or one part; and GetObjectAttributes."""

from __future__ import annotations

from collections.abc import Mapping

from nanio.errors import InvalidArgument, InvalidRequest, S3Error

from ridgeline_service.objects import documents
from ridgeline_service.objects.conditions import check_read
from ridgeline_service.objects.http import (
    CHECKSUM_PREFIX,
    S3Request,
    S3Response,
    byte_range,
    http_date,
    object_headers,
    xml,
)
from ridgeline_service.objects.index import StoredObject
from ridgeline_service.objects.storage import ObjectStore

_MAX_PART = 10_000
_ATTRIBUTES = frozenset(("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"))


class InvalidPartNumber(S3Error):  # type: ignore[misc]
    code = "InvalidPartNumber"
    message = "The requested partnumber is not satisfiable"
    http_status = 416


def get(request: S3Request, store: ObjectStore) -> S3Response:
    """GetObject and HeadObject."""
    stored = store.head(request.bucket, request.key)
    check_read(request.headers, stored)
    headers = object_headers(stored, request.query)
    wanted: tuple[int, int] | None
    if "partNumber" in request.query:
        wanted = _part(request, stored)
        if stored.part_sizes:
            headers["x-amz-mp-parts-count"] = str(len(stored.part_sizes))
    else:
        wanted = byte_range(request.headers.get("range"), stored.size)
    start, end = wanted or (0, stored.size - 1)
    headers["content-length"] = str(end - start + 1)
    # No Content-Range can tell where a part without bytes lies.
    partial = wanted is not None and start <= end
    if partial:
        headers["content-range"] = f"bytes {start}-{end}/{stored.size}"
    elif request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        headers |= _checksums(stored)
    status = 206 if partial else 200
    if request.method == "HEAD":
        return S3Response(status, headers)
    return S3Response(status, headers, content=stored, start=start, end=end)


def attributes(request: S3Request, store: ObjectStore) -> S3Response:
    """GetObjectAttributes. Parts are counted and not listed: they have no checksums to tell."""
    stored = store.head(request.bucket, request.key)
    asked = request.headers.get("x-amz-object-attributes", "")
    names = {name.strip() for name in asked.split(",")}
    if not names <= _ATTRIBUTES:
        raise InvalidArgument(
            f"x-amz-object-attributes takes {', '.join(sorted(_ATTRIBUTES))}, got {asked!r}"
        )
    answer = xml(documents.attributes(stored, names, _checksums(stored)))
    answer.headers["last-modified"] = http_date(stored.modified)
    return answer


def _part(request: S3Request, stored: StoredObject) -> tuple[int, int]:
    """First and last byte of the part asked for: the last is before the first if it is empty.
    Parts count from 1 as they lie in the object, and one that came whole is its own first."""
    if "range" in request.headers:
        raise InvalidRequest("Cannot specify both Range header and partNumber query parameter")
    asked = request.query["partNumber"]
    if not (asked.isascii() and asked.isdigit() and 1 <= int(asked) <= _MAX_PART):
        raise InvalidArgument(f"partNumber must be from 1 to {_MAX_PART}, got {asked!r}")
    sizes = stored.part_sizes or (stored.size,)
    if int(asked) > len(sizes):
        raise InvalidPartNumber(f"Part {asked} was asked for, and the object has {len(sizes)}.")
    start = sum(sizes[: int(asked) - 1])
    return start, start + sizes[int(asked) - 1] - 1


def _checksums(stored: StoredObject) -> Mapping[str, str]:
    return {n: v for n, v in stored.headers.items() if n.startswith(CHECKSUM_PREFIX)}
