"""S3's operations on the service, on buckets and on objects, each a function of request and store.

Multipart uploads, reads of objects and what is not served have files of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from nanio.errors import InvalidArgument, InvalidRequest, MalformedXML, NotImplemented_, S3Error
from nanio.handlers._body import parse_xml_safely
from nanio.xml import copy_object_result_xml, list_buckets_xml

from ridgeline_service.objects import documents, multipart, retrieval, unserved
from ridgeline_service.objects.conditions import WriteCondition, check_read
from ridgeline_service.objects.http import (
    S3Request,
    S3Response,
    kept_headers,
    parse_query,
    require_current,
    xml,
)
from ridgeline_service.objects.index import StoredObject
from ridgeline_service.objects.storage import ObjectStore
from ridgeline_service.objects.times import utc

_MAX_DOCUMENT = 4 * 1024 * 1024
_MAX_KEY = 1024
_DELETED_BY = frozenset(("Key", "ETag", "VersionId"))


class MethodNotAllowed(S3Error):  # type: ignore[misc]
    code = "MethodNotAllowed"
    message = "The specified method is not allowed against this resource."
    http_status = 405


async def answer(request: S3Request, store: ObjectStore, region: str) -> S3Response:
    """Do what the request asks. Raises nanio's S3Error."""
    unserved.refuse_headers(request)
    unset = unserved.answer(request, store)
    if unset is not None:
        return unset
    if not request.bucket:
        return _service(request, store)
    if not request.key:
        return await _bucket(request, store, region)
    if len(request.key.encode()) > _MAX_KEY:
        raise KeyTooLong()
    require_current(request.query)
    return await _object(request, store)


class KeyTooLong(S3Error):  # type: ignore[misc]
    code = "KeyTooLongError"
    message = f"Your key is too long: it may have up to {_MAX_KEY} bytes."
    http_status = 400


def _service(request: S3Request, store: ObjectStore) -> S3Response:
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed()
    prefix = request.query.get("prefix", "")
    found = [(name, utc(at)) for name, at in store.buckets() if name.startswith(prefix)]
    return xml(
        list_buckets_xml(found, owner_id=documents.OWNER, owner_display_name=documents.OWNER)
    )


async def _bucket(request: S3Request, store: ObjectStore, region: str) -> S3Response:
    bucket = request.bucket
    match request.method:
        case "PUT":
            _check_configuration(await request.payload.read(_MAX_DOCUMENT))
            await store.create_bucket(bucket, again=region == "us-east-1")
            return S3Response(200, {"location": f"/{bucket}"})
        case "DELETE":
            await store.delete_bucket(bucket)
            return S3Response(204)
        case "HEAD":
            store.require_bucket(bucket)
            return S3Response(200, {"x-amz-bucket-region": region})
        case "GET" if "location" in request.query:
            store.require_bucket(bucket)
            return xml(documents.location(region))
        case "GET" if "uploads" in request.query:
            return multipart.list_uploads(request, store)
        case "GET" if "versions" in request.query:
            return _list_versions(request, store)
        case "GET":
            return _list(request, store)
        case "POST" if "delete" in request.query:
            return await _delete_many(request, store)
        case _:
            raise MethodNotAllowed()


def _check_configuration(configuration: bytes) -> None:
    """Of CreateBucket. A region is as good as any other, like that of a signature: clients of all
    regions use the one service."""
    for element in parse_xml_safely(configuration) if configuration.strip() else ():
        name = element.tag.rpartition("}")[2]
        if name != "LocationConstraint":
            raise NotImplemented_(f"{name} of a CreateBucketConfiguration is not supported here.")


async def _object(request: S3Request, store: ObjectStore) -> S3Response:
    upload = "uploadId" in request.query
    match request.method:
        case "GET" if upload:
            return multipart.list_parts(request, store)
        case "GET" if "attributes" in request.query:
            return retrieval.attributes(request, store)
        case "GET" | "HEAD":
            return retrieval.get(request, store)
        case "PUT" if upload and "x-amz-copy-source" in request.headers:
            source = copy_source(request.headers, store)
            return await multipart.copy_part(request, store, source)
        case "PUT" if upload:
            return await multipart.put_part(request, store)
        case "PUT" if "x-amz-copy-source" in request.headers:
            return await _copy(request, store)
        case "PUT":
            return await _put(request, store)
        case "POST" if "uploads" in request.query:
            return await multipart.create(request, store)
        case "POST" if upload:
            return await multipart.complete(request, store)
        case "DELETE" if upload:
            return await multipart.abort(request, store)
        case "DELETE":
            return await _delete(request, store)
        case _:
            raise MethodNotAllowed()


def _list(request: S3Request, store: ObjectStore) -> S3Response:
    query = request.query
    version = 2 if query.get("list-type") == "2" else 1
    limit = _max_keys(query)
    after = query.get("start-after" if version == 2 else "marker", "")
    token = query.get("continuation-token", "") if version == 2 else ""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    listing = store.page(
        request.bucket,
        prefix=prefix,
        delimiter=delimiter,
        after=documents.decode_token(token) if token else after,
        limit=limit,
    )
    return xml(
        documents.list_objects(
            request.bucket,
            listing,
            version=version,
            prefix=prefix,
            delimiter=delimiter,
            limit=limit,
            after=after,
            token=token,
            url_encoded=query.get("encoding-type") == "url",
            owner=documents.OWNER if version == 1 or query.get("fetch-owner") == "true" else "",
        )
    )


def _list_versions(request: S3Request, store: ObjectStore) -> S3Response:
    """ListObjectVersions of a bucket without versions: each object is one, the current."""
    query = request.query
    limit = _max_keys(query)
    asked = {name: query.get(name, "") for name in ("prefix", "delimiter")}
    after = query.get("key-marker", "")
    listing = store.page(request.bucket, **asked, after=after, limit=limit)
    return xml(
        documents.list_versions(
            request.bucket,
            listing,
            **asked,
            limit=limit,
            after=after,
            url_encoded=query.get("encoding-type") == "url",
        )
    )


def _max_keys(query: Mapping[str, str]) -> int:
    asked = query.get("max-keys", "1000")
    if not (asked.isascii() and asked.isdigit()):
        raise InvalidArgument(f"max-keys must be a whole number, got {asked!r}")
    return min(int(asked), 1000)


async def _delete(request: S3Request, store: ObjectStore) -> S3Response:
    wanted = [(request.key, WriteCondition.of(request.headers))]
    (refusal,) = await store.delete(request.bucket, wanted)
    if refusal is not None:
        raise refusal
    return S3Response(204)


async def _delete_many(request: S3Request, store: ObjectStore) -> S3Response:
    root = parse_xml_safely(await request.payload.read(_MAX_DOCUMENT))
    wanted: list[dict[str, str]] = []
    quiet = False
    for element in root:
        tag = element.tag.rpartition("}")[2]
        if tag == "Quiet":
            quiet = (element.text or "").strip() == "true"
        elif tag == "Object":
            fields = {child.tag.rpartition("}")[2]: child.text or "" for child in element}
            if not fields.get("Key"):
                raise MalformedXML("Every Object needs one Key")
            wanted.append(fields)
    if not 1 <= len(wanted) <= 1000:
        raise MalformedXML("DeleteObjects takes from 1 to 1000 keys")
    refused = [_refusal(fields) for fields in wanted]
    served = [fields for fields, why in zip(wanted, refused, strict=True) if why is None]
    conditions = [(each["Key"], WriteCondition(etag=each.get("ETag", ""))) for each in served]
    kept = iter(await store.delete(request.bucket, conditions))
    outcomes = [
        (fields, next(kept) if why is None else why)
        for fields, why in zip(wanted, refused, strict=True)
    ]
    return xml(documents.deleted(outcomes, quiet=quiet))


def _refusal(fields: Mapping[str, str]) -> S3Error | None:
    """Why an entry of DeleteObjects is not done: it alone, the others are."""
    if unknown := fields.keys() - _DELETED_BY:
        return NotImplemented_(f"{min(unknown)} of an Object is not supported here.")
    try:
        require_current(fields, "VersionId")
    except InvalidArgument as error:
        return error
    return None


async def _put(request: S3Request, store: ObjectStore) -> S3Response:
    store.require_bucket(request.bucket)
    condition = WriteCondition.of(request.headers)
    kept = kept_headers(request.headers)
    blob = await store.write_blob(aiter(request.payload))
    checksums = request.payload.checksums
    stored = await store.put(request.bucket, request.key, blob, kept | checksums, condition)
    return S3Response(200, {"etag": f'"{stored.etag}"'} | checksums)


async def _copy(request: S3Request, store: ObjectStore) -> S3Response:
    source = copy_source(request.headers, store)
    replaced = request.headers.get("x-amz-metadata-directive", "COPY").upper() == "REPLACE"
    same = unquote(request.headers["x-amz-copy-source"].partition("?")[0]).lstrip("/")
    if not replaced and same == f"{request.bucket}/{request.key}":
        raise InvalidRequest(
            "This copy request is illegal because it is trying to copy an object to itself without"
            " changing the object's metadata."
        )
    store.require_bucket(request.bucket)
    headers = kept_headers(request.headers) if replaced else None
    condition = WriteCondition.of(request.headers)
    stored = await store.copy(source, request.bucket, request.key, headers, condition)
    etag = f'"{stored.etag}"'
    return xml(copy_object_result_xml(etag=etag, last_modified=utc(stored.modified)))


def copy_source(headers: Mapping[str, str], store: ObjectStore) -> StoredObject:
    """The object that ``x-amz-copy-source`` names, if its conditions hold."""
    path, _, query = headers["x-amz-copy-source"].partition("?")
    require_current(parse_query(query.encode("latin-1")))
    named = unquote(path).removeprefix("/")
    bucket, _, key = named.partition("/")
    if not bucket or not key:
        raise InvalidArgument("x-amz-copy-source must be BUCKET/KEY")
    stored = store.head(bucket, key)
    check_read(headers, stored, prefix="x-amz-copy-source-", reading=False)
    return stored
