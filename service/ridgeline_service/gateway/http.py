"""The gateway's view of one HTTP exchange: a thin, typed hand on the bare ASGI triple.

No framework: on the path of an inference every layer costs more than all that is done here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any

from ridgeline_service.errors import AwsError
from ridgeline_service.security.sigv4 import SignedRequest
from ridgeline_service.telemetry.tracing import NO_SPAN, Span

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
HeaderList = Iterable[tuple[str, str]]

HOP_BY_HOP = frozenset(
    (
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


class ClientGone(Exception):
    """The client closed its connection: nobody waits for an answer any more."""


class PayloadTooLarge(AwsError):
    code = "RequestEntityTooLarge"
    http_status = 413


class MethodNotAllowed(AwsError):
    code = "MethodNotAllowed"
    http_status = 405


def wire_headers(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Read so that ``Exchange.start`` sends them again byte for byte, which aiohttp's own reading
    of what is not ASCII does not allow."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]


class Exchange:
    """One request and the way to answer it. Header names are lower-case. ``answer_headers`` go out
    with whatever the answer is; ``endpoint`` and ``span`` are what is told of it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._body_begun = False
        self.request_id = request_id
        self.started = False
        self.status = 0
        self.endpoint = ""
        self.span: Span = NO_SPAN
        self.answer_headers: list[tuple[str, str]] = []
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.raw_path: str = scope["raw_path"].decode("latin-1")
        self.query: bytes = scope["query_string"]

    @cached_property
    def header_list(self) -> list[tuple[str, str]]:
        return wire_headers(self._scope["headers"])

    @cached_property
    def headers(self) -> Mapping[str, str]:
        return dict(self.header_list)

    @property
    def host(self) -> str:
        return self.headers.get("host", "")

    @property
    def signed(self) -> SignedRequest:
        return SignedRequest(self.method, self.host, self.raw_path, self.query, self.header_list)

    async def body(self, limit: int) -> bytes:
        """All of the body. Raises PayloadTooLarge, or ClientGone if it never comes."""
        declared = self.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        pieces = []
        size = 0
        async for piece in self.stream():
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            pieces.append(piece)
        return b"".join(pieces)

    async def stream(self) -> AsyncIterator[bytes]:
        self._body_begun = True
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            if piece:
                yield piece
            if not message.get("more_body"):
                return

    @asynccontextmanager
    async def until_client_leaves(self) -> AsyncIterator[None]:
        """Cancel the block when the client closes its connection, and raise ClientGone then.

        To be entered once the body was read: nothing but the disconnect is left to receive.
        """
        task = asyncio.current_task()
        assert task is not None
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await self._receive())["type"] != "http.disconnect":
                pass
            gone = True
            task.cancel()

        watcher = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            if not gone:
                raise
            task.uncancel()
            raise ClientGone from None
        finally:
            watcher.cancel()

    async def start(self, status: int, headers: HeaderList) -> None:
        """Begin the answer. Without a Content-Length it is sent in chunks as they come."""
        said = [*headers, *self.answer_headers]
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in said]
        raw.append((b"x-amzn-requestid", self.request_id.encode()))
        if not self._body_begun and "expect" in self.headers:
            # The announced body will not be sent; what comes next must not be taken for it.
            raw.append((b"connection", b"close"))
        self.started = True
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self, chunk: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": chunk})

    async def respond(self, status: int, headers: HeaderList, body: bytes = b"") -> None:
        length = [] if status in (204, 304) else [("content-length", str(len(body)))]
        await self.start(status, [*headers, *length])
        await self.end(body)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body may have up to {limit} bytes.")
