"""The object store as an ASGI application: who may call, what is asked, and the answer.

Requests are verified here and nowhere before: the gateway passes S3 through untouched. The keys
come from the control plane's snapshot, so that the store works on while the control plane is away.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from datetime import datetime
from typing import Any

from nanio.errors import AccessDenied, NotImplemented_, S3Error

from ridgeline_service.errors import AccessDeniedException, AwsError, disk_full
from ridgeline_service.objects import operations
from ridgeline_service.objects.forward import Forwarder
from ridgeline_service.objects.http import (
    S3Request,
    S3Response,
    address,
    host_bucket,
    parse_query,
    presigned_headers,
)
from ridgeline_service.objects.payload import ChunkSigner, Payload
from ridgeline_service.objects.storage import ObjectStore
from ridgeline_service.security.sigv2 import is_sigv2, verify_sigv2
from ridgeline_service.security.sigv4 import SignedRequest, is_signed, verify
from ridgeline_service.snapshot import SnapshotReader

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_log = logging.getLogger(__name__)


class ClientGone(Exception):
    """The client closed its connection before its body was here."""


class ObjectStoreApp:
    """One store. ``account_id`` is what ``x-amz-expected-bucket-owner`` must name."""

    def __init__(
        self,
        store: ObjectStore,
        snapshots: SnapshotReader,
        *,
        own_credentials: Mapping[str, str],
        region: str,
        account_id: str,
        now: Callable[[], datetime],
        forwarder: Forwarder | None = None,
    ) -> None:
        """``own_credentials`` (the root key) work until the first snapshot is published.
        With a ``forwarder`` another S3 holds the objects, and the store stays empty."""
        self._store = store
        self._snapshots = snapshots
        self._own = dict(own_credentials)
        self._region = region
        self._account_id = account_id
        self._now = now
        self._forwarder = forwarder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["path"] == "/healthz" and _asks_health(scope):
            await self._respond(
                send, S3Response(200, {"content-type": "application/json"}, _HEALTHY)
            )
            return
        request_id = secrets.token_hex(8).upper()
        body = _Body(receive)
        try:
            request = self._verified(scope, body)
            if self._forwarder is not None:
                await self._forwarder.pass_on(request, send)
                return
            response = await operations.answer(request, self._store, self._region)
        except ClientGone:
            return
        except S3Error as error:
            error.request_id = request_id
            response = _error(error)
        except Exception as error:  # noqa: BLE001 - the border: a bug is logged, never sent
            response = self._failed(error, scope, request_id)
        response.headers["x-amz-request-id"] = request_id
        if not body.begun and (b"expect", b"100-continue") in scope["headers"]:
            # The client will not send the body that it announced: the next bytes on this
            # connection could be taken for it.
            response.headers["connection"] = "close"
        await self._respond(send, response)

    def _failed(self, error: Exception, scope: Scope, request_id: str) -> S3Response:
        full = disk_full(error, str(self._store.root))
        if full is None:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            return _error(S3Error(request_id=request_id))
        _log.error("%s %s failed: %s", scope["method"], scope["path"], full.message)
        translated = _s3_error(full)
        translated.request_id = request_id
        return _error(translated)

    def _verified(self, scope: Scope, body: _Body) -> S3Request:
        pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"]]
        headers = dict(pairs)
        host = headers.get("host", "")
        raw_path = scope["raw_path"].decode("latin-1")
        credentials = self._credentials()
        signed = SignedRequest(scope["method"], host, raw_path, scope["query_string"], pairs)
        now = self._now()
        if not is_signed(signed) and _is_form(scope["method"], headers):
            raise NotImplemented_(
                "Uploads by a form (presigned POST) are not supported here. Presign a PUT instead."
            )
        query = parse_query(scope["query_string"])
        try:
            if is_sigv2(scope["query_string"]) and not is_signed(signed):
                verified = verify_sigv2(signed, credentials, bucket=host_bucket(host), now=now)
            else:
                verified = verify(signed, credentials, now=now, body_sha256=None)
                # Only this signature covers the whole query.
                headers |= presigned_headers(query) if verified.presigned else {}
        except AccessDeniedException as error:
            raise _s3_error(error) from None
        if verified.service != "s3":
            raise AccessDenied(f"The request is signed for {verified.service!r}, not for 's3'.")
        self._check_owners(headers)
        bucket, key = address(host, raw_path)
        payload = Payload(
            aiter(body),
            headers,
            marker=verified.payload,
            signer=ChunkSigner.of(verified),
        )
        return S3Request(scope["method"], bucket, key, query, headers, payload)

    def _check_owners(self, headers: Mapping[str, str]) -> None:
        for name in ("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"):
            owner = headers.get(name)
            if owner is not None and owner != self._account_id:
                raise AccessDenied(f"The bucket is owned by {self._account_id}, not by {owner}.")

    def _credentials(self) -> Mapping[str, str]:
        snapshot = self._snapshots.current()
        if snapshot.version == 0:
            return self._own
        return {key.access_key_id: key.secret_access_key for key in snapshot.credentials}

    async def _respond(self, send: Send, response: S3Response) -> None:
        headers = {"content-length": str(len(response.body))} | response.headers
        start: Message = {
            "type": "http.response.start",
            "status": response.status,
            "headers": [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers.items()],
        }
        if response.status in (204, 304):
            start["headers"] = [pair for pair in start["headers"] if pair[0] != b"content-length"]
        content = response.content
        if content is None:
            await send(start)
            await send({"type": "http.response.body", "body": response.body})
            return
        with self._store.pinned(content):
            await send(start)
            length = response.end - response.start + 1
            async for chunk in self._store.read(content, response.start, length):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                self._store.close()
                if self._forwarder is not None:
                    await self._forwarder.close()
                return


_HEALTHY = b'{"status":"ok"}'


def _asks_health(scope: Scope) -> bool:
    """Whether ``/healthz`` means our health, and not a bucket or an object of that name."""
    headers = dict(scope["headers"])
    signed = scope["query_string"] or b"authorization" in headers
    return not signed and not host_bucket(headers.get(b"host", b"").decode("latin-1"))


def _is_form(method: str, headers: Mapping[str, str]) -> bool:
    return method == "POST" and headers.get("content-type", "").startswith("multipart/form-data")


class _Body:
    """The bytes that the client sends, and whether we ever asked for them."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.begun = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun = True
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return


def _s3_error(error: AwsError) -> S3Error:
    translated = S3Error(str(error))
    translated.code = error.code
    translated.http_status = error.http_status
    return translated


def _error(error: S3Error) -> S3Response:
    if error.http_status == 304:
        return S3Response(304)
    return S3Response(error.http_status, {"content-type": "application/xml"}, error.to_xml())
