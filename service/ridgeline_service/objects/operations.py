"""S3's operations on the service, on buckets and on objects, each a function of request and store.

Multipart uploads have a file of their own. A sub-resource that is not served (``?acl``,
``?versioning``...) answers NotImplemented: taken for a plain PUT it would overwrite an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from nanio.errors import InvalidArgument, InvalidRequest, MalformedXML, NotImplemented_, S3Error
from nanio.handlers._body import parse_xml_safely
from nanio.xml import copy_object_result_xml, list_buckets_xml

from ridgeline_service.objects import documents, multipart
from ridgeline_service.objects.http import (
    S3Request,
    S3Response,
    byte_range,
    check_conditions,
    kept_headers,
    object_headers,
    xml,
)
from ridgeline_service.objects.index import StoredObject
from ridgeline_service.objects.storage import ObjectStore
from ridgeline_service.objects.times import utc

_MAX_DOCUMENT = 4 * 1024 * 1024
_MAX_KEY = 1024
_UNSERVED = frozenset(
    (
        "accelerate",
        "acl",
        "analytics",
        "attributes",
        "cors",
        "encryption",
        "intelligent-tiering",
        "inventory",
        "legal-hold",
        "lifecycle",
        "logging",
        "metrics",
        "notification",
        "object-lock",
        "ownershipControls",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "replication",
        "requestPayment",
        "restore",
        "retention",
        "select",
        "tagging",
        "torrent",
        "versioning",
        "versions",
        "website",
    )
)


class MethodNotAllowed(S3Error):  # type: ignore[misc]
    code = "MethodNotAllowed"
    message = "The specified method is not allowed against this resource."
    http_status = 405


async def answer(request: S3Request, store: ObjectStore, region: str) -> S3Response:
    """Do what the request asks. Raises nanio's S3Error."""
    unserved = _UNSERVED & request.query.keys()
    if unserved:
        raise NotImplemented_(f"The sub-resource {sorted(unserved)[0]!r} is not supported here.")
    if not request.bucket:
        return _service(request, store)
    if not request.key:
        return await _bucket(request, store, region)
    if len(request.key.encode()) > _MAX_KEY:
        raise KeyTooLong()
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
    return xml(list_buckets_xml(found, owner_id="ridgeline", owner_display_name="ridgeline"))


async def _bucket(request: S3Request, store: ObjectStore, region: str) -> S3Response:
    bucket = request.bucket
    match request.method:
        case "PUT":
            await request.payload.read(_MAX_DOCUMENT)
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
        case "GET":
            return _list(request, store)
        case "POST" if "delete" in request.query:
            return await _delete_many(request, store)
        case _:
            raise MethodNotAllowed()


async def _object(request: S3Request, store: ObjectStore) -> S3Response:
    upload = "uploadId" in request.query
    match request.method:
        case "GET" if upload:
            return multipart.list_parts(request, store)
        case "GET" | "HEAD":
            return _get(request, store)
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
            await store.delete(request.bucket, [request.key])
            return S3Response(204)
        case _:
            raise MethodNotAllowed()


def _list(request: S3Request, store: ObjectStore) -> S3Response:
    query = request.query
    version = 2 if query.get("list-type") == "2" else 1
    asked = query.get("max-keys", "1000")
    if not asked.isdigit():
        raise InvalidArgument(f"max-keys must be a whole number, got {asked!r}")
    limit = min(int(asked), 1000)
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
            owner="ridgeline" if version == 1 or query.get("fetch-owner") == "true" else "",
        )
    )


async def _delete_many(request: S3Request, store: ObjectStore) -> S3Response:
    root = parse_xml_safely(await request.payload.read(_MAX_DOCUMENT))
    keys: list[str] = []
    quiet = False
    for element in root:
        tag = element.tag.rpartition("}")[2]
        if tag == "Quiet":
            quiet = (element.text or "").strip() == "true"
        elif tag == "Object":
            named = [child.text for child in element if child.tag.rpartition("}")[2] == "Key"]
            if len(named) != 1 or not named[0]:
                raise MalformedXML("Every Object needs one Key")
            keys.append(named[0])
    if not 1 <= len(keys) <= 1000:
        raise MalformedXML("DeleteObjects takes from 1 to 1000 keys")
    await store.delete(request.bucket, keys)
    return xml(documents.deleted([] if quiet else keys))


async def _put(request: S3Request, store: ObjectStore) -> S3Response:
    store.require_bucket(request.bucket)
    kept = kept_headers(request.headers)
    blob = await store.write_blob(aiter(request.payload))
    checksums = request.payload.checksums
    stored = await store.put(
        request.bucket,
        request.key,
        blob,
        kept | checksums,
        only_new=request.headers.get("if-none-match") == "*",
    )
    return S3Response(200, {"etag": f'"{stored.etag}"'} | checksums)


def _get(request: S3Request, store: ObjectStore) -> S3Response:
    stored = store.head(request.bucket, request.key)
    check_conditions(request.headers, stored)
    headers = object_headers(stored, request.query)
    wanted = byte_range(request.headers.get("range"), stored.size)
    start, end = wanted or (0, stored.size - 1)
    headers["content-length"] = str(end - start + 1)
    if wanted:
        headers["content-range"] = f"bytes {start}-{end}/{stored.size}"
    elif request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        headers |= {n: v for n, v in stored.headers.items() if n.startswith("x-amz-checksum-")}
    status = 206 if wanted else 200
    if request.method == "HEAD":
        return S3Response(status, headers)
    return S3Response(status, headers, content=stored, start=start, end=end)


async def _copy(request: S3Request, store: ObjectStore) -> S3Response:
    source = copy_source(request.headers, store)
    replaced = request.headers.get("x-amz-metadata-directive", "COPY").upper() == "REPLACE"
    same = unquote(request.headers["x-amz-copy-source"]).lstrip("/")
    if not replaced and same == f"{request.bucket}/{request.key}":
        raise InvalidRequest(
            "This copy request is illegal because it is trying to copy an object to itself without"
            " changing the object's metadata."
        )
    store.require_bucket(request.bucket)
    headers = kept_headers(request.headers) if replaced else None
    stored = await store.copy(source, request.bucket, request.key, headers)
    etag = f'"{stored.etag}"'
    return xml(copy_object_result_xml(etag=etag, last_modified=utc(stored.modified)))


def copy_source(headers: Mapping[str, str], store: ObjectStore) -> StoredObject:
    """The object that ``x-amz-copy-source`` names, if its conditions hold."""
    named = unquote(headers["x-amz-copy-source"].partition("?")[0]).removeprefix("/")
    bucket, _, key = named.partition("/")
    if not bucket or not key:
        raise InvalidArgument("x-amz-copy-source must be BUCKET/KEY")
    stored = store.head(bucket, key)
    check_conditions(headers, stored, prefix="x-amz-copy-source-", reading=False)
    return stored
