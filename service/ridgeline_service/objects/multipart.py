"""Multipart uploads. Completing one moves no byte: the object is the list of its parts.

Checksums are verified part by part, as the parts arrive. The object keeps none; only a client that
says one of the whole makes the bytes be read again, to verify it.
"""

from __future__ import annotations

from urllib.parse import quote

from nanio.errors import InvalidArgument, InvalidRequest, MalformedXML, NotImplemented_
from nanio.handlers._body import parse_xml_safely
from nanio.xml import (
    complete_multipart_upload_xml,
    initiate_multipart_upload_xml,
    list_multipart_uploads_xml,
    list_parts_xml,
)

from ridgeline_service.objects import documents
from ridgeline_service.objects.conditions import WriteCondition
from ridgeline_service.objects.http import (
    S3Request,
    S3Response,
    byte_range,
    host_bucket,
    kept_headers,
    xml,
)
from ridgeline_service.objects.index import StoredObject, Upload
from ridgeline_service.objects.payload import announced_checksums, verify_checksums
from ridgeline_service.objects.storage import ObjectStore
from ridgeline_service.objects.times import utc

_MAX_DOCUMENT = 4 * 1024 * 1024
# The others are, for an upload of parts, checksums of the parts' checksums.
_OF_WHOLE = frozenset(f"x-amz-checksum-{kind}" for kind in ("crc32", "crc32c", "crc64nvme"))


async def create(request: S3Request, store: ObjectStore) -> S3Response:
    upload = await store.create_upload(request.bucket, request.key, kept_headers(request.headers))
    return xml(
        initiate_multipart_upload_xml(
            bucket=request.bucket, key=request.key, upload_id=upload.upload_id
        )
    )


async def put_part(request: S3Request, store: ObjectStore) -> S3Response:
    upload = _upload(request, store)
    number = _number(request)
    blob = await store.write_blob(aiter(request.payload))
    part = await store.put_part(upload, number, blob)
    return S3Response(200, {"etag": f'"{part.md5}"'} | request.payload.checksums)


async def copy_part(request: S3Request, store: ObjectStore, source: StoredObject) -> S3Response:
    upload = _upload(request, store)
    number = _number(request)
    span = request.headers.get("x-amz-copy-source-range")
    wanted = byte_range(span, source.size)
    if span is not None and wanted is None:
        raise InvalidArgument(
            "The x-amz-copy-source-range value must be of the form bytes=first-last"
        )
    start, end = wanted or (0, source.size - 1)
    with store.pinned(source):
        blob = await store.write_blob(store.read(source, start, end - start + 1))
    part = await store.put_part(upload, number, blob)
    return xml(documents.copy_part(part.md5, part.modified))


async def complete(request: S3Request, store: ObjectStore) -> S3Response:
    upload = _upload(request, store)
    root = parse_xml_safely(await request.payload.read(_MAX_DOCUMENT, of_body=False))
    wanted: list[tuple[int, str]] = []
    for element in root:
        if element.tag.rpartition("}")[2] != "Part":
            continue
        fields = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in element}
        number, etag = fields.get("PartNumber", ""), fields.get("ETag", "")
        if not number.isdigit() or not etag:
            raise MalformedXML("Every Part needs a PartNumber and an ETag")
        wanted.append((int(number), etag))
    await _check_whole(request, store, upload, wanted)
    stored = await store.complete(upload, wanted, WriteCondition.of(request.headers))
    return xml(
        complete_multipart_upload_xml(
            bucket=request.bucket,
            key=request.key,
            etag=f'"{stored.etag}"',
            location=_location(request),
        )
    )


async def _check_whole(
    request: S3Request, store: ObjectStore, upload: Upload, wanted: list[tuple[int, str]]
) -> None:
    """Hold the object to what the client says of it. Raises InvalidRequest for another size,
    BadDigest for another checksum, and NotImplemented_ for a checksum that is not verified here."""
    size = request.headers.get("x-amz-mp-object-size")
    said = announced_checksums(request.headers)
    composite = request.headers.get("x-amz-checksum-type", "").upper() == "COMPOSITE"
    for name, value in said.items():
        if composite or name not in _OF_WHOLE or "-" in value:
            raise NotImplemented_(
                f"The header {name} tells no CRC of the whole object: that is not supported here. "
                "Leave it out: each part's own checksum was verified as the part arrived."
            )
    if size is None and not said:
        return
    whole = store.assembled(upload, wanted)
    if size is not None and size != str(whole.size):
        raise InvalidRequest(
            f"The header x-amz-mp-object-size says {size!r}, and the parts have {whole.size} bytes."
        )
    if said:
        with store.pinned(whole):
            await verify_checksums(store.read(whole, 0, whole.size), said)


def _location(request: S3Request) -> str:
    """The URL of the object, by the address that the client has used."""
    host = request.headers.get("host", "")
    folder = "" if host_bucket(host) else f"/{request.bucket}"
    path = f"{folder}/{quote(request.key, safe='/~')}"
    if not host:
        return path
    # The first proxy on the way is the one that the client talks to.
    outside = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    secure = ".amazonaws.com" in host or outside == "https"
    return f"{'https' if secure else 'http'}://{host}{path}"


async def abort(request: S3Request, store: ObjectStore) -> S3Response:
    await store.abort(_upload(request, store))
    return S3Response(204)


def list_parts(request: S3Request, store: ObjectStore) -> S3Response:
    upload = _upload(request, store)
    marker = int(_digits(request, "part-number-marker", "0"))
    limit = min(int(_digits(request, "max-parts", "1000")), 1000)
    parts = [part for part in store.parts(upload) if part.number > marker]
    page = parts[:limit]
    more = len(parts) > limit
    return xml(
        list_parts_xml(
            bucket=request.bucket,
            key=request.key,
            upload_id=upload.upload_id,
            parts_listed=[
                (part.number, utc(part.modified), f'"{part.md5}"', part.segment.size)
                for part in page
            ],
            max_parts=limit,
            is_truncated=more,
            next_part_marker=page[-1].number if more and page else None,
        )
    )


def list_uploads(request: S3Request, store: ObjectStore) -> S3Response:
    prefix = request.query.get("prefix", "")
    found = [u for u in store.uploads(request.bucket) if u.key.startswith(prefix)]
    return xml(
        list_multipart_uploads_xml(
            bucket=request.bucket,
            uploads=[(upload.key, upload.upload_id, utc(upload.created)) for upload in found],
        )
    )


def _upload(request: S3Request, store: ObjectStore) -> Upload:
    return store.upload(request.query.get("uploadId", ""), request.bucket, request.key)


def _number(request: S3Request) -> int:
    return int(_digits(request, "partNumber", ""))


def _digits(request: S3Request, name: str, default: str) -> str:
    value = request.query.get(name, default)
    if not (value.isascii() and value.isdigit()):
        raise InvalidArgument(f"{name} must be a whole number, got {value!r}")
    return value
