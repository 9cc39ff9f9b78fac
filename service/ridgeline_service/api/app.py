"""The control plane's ASGI application: lets in who holds the internal key, and hands AWS calls to
the dispatcher and ``/api`` to the REST application.

Plain ASGI, because a framework costs more here than the call itself. Operations are synchronous
and run in a thread pool; this module knows nothing of what they do.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from ridgeline.errors import RidgelineError
from ridgeline_service.api.dispatch import Call, Dispatcher, Outcome
from ridgeline_service.api.validation import SerializationException
from ridgeline_service.api.wire import Reply
from ridgeline_service.errors import AccessDeniedException, AwsError
from ridgeline_service.telemetry.metrics import CONTENT_TYPE, ApiMetrics

# ASGI's own types: a scope and a message are open dictionaries by specification.
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 * 1024 * 1024
_THREADS = 8


class RequestTooLarge(AwsError):
    code = "RequestEntityTooLarge"
    http_status = 413


class _Gone(Exception):
    """The client left before its request was whole."""


@dataclass(frozen=True)
class Lifecycle:
    """What runs when the server starts and before it ends; both may block."""

    start: Callable[[], None]
    stop: Callable[[], None]


class App:
    """``rest`` answers ``/api``; ``lifecycle`` starts and stops what lies behind."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        rest: AsgiApp,
        *,
        internal_key: str,
        metrics: ApiMetrics,
        lifecycle: Lifecycle,
        monotonic: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._dispatcher = dispatcher
        self._rest = rest
        self._key = internal_key.encode()
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._monotonic = monotonic
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        headers = dict(scope["headers"])
        if path == "/healthz":
            await _send(send, _json(200, {"status": "ok"}))
            return
        if not hmac.compare_digest(headers.get(b"x-ridgeline-internal", b""), self._key):
            error = AccessDeniedException("Only the gateway may call the control plane.")
            await _send(send, _rest_fault(error))
            return
        try:
            if path == "/metrics":
                body = await self._in_thread(self._metrics.exposition)
                await _send(send, Reply(200, {"content-type": CONTENT_TYPE}, body))
            elif path == "/api" or path.startswith("/api/"):
                await self._answer_rest(scope, receive, send)
            else:
                encoding = headers.get(b"content-encoding", b"")
                await self._answer_aws(_call(scope, headers), encoding, receive, send)
        except _Gone:
            log.debug("%s %s: the caller left", scope["method"], path)

    async def _answer_aws(self, call: Call, encoding: bytes, receive: Receive, send: Send) -> None:
        started = self._monotonic()
        try:
            body = _unpacked(await _read_body(receive), encoding)
        except AwsError as error:
            outcome = await self._in_thread(partial(self._dispatcher.refuse, call, error))
        else:
            whole = replace(call, body=body)
            outcome = await self._in_thread(partial(self._dispatcher.handle, whole))
        self._observe(outcome, self._monotonic() - started)
        await _send(send, outcome.reply)

    async def _answer_rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _read_body(receive)
        except RequestTooLarge as error:
            await _send(send, _rest_fault(error))
            return
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> MutableMapping[str, Any]:
            message = next(messages, None)
            return message if message is not None else await receive()

        try:
            await self._rest(scope, replay, send)
        except Exception:
            # The framework raises a bug once more after it has answered it.
            log.exception("%s %s failed", scope["method"], scope["path"])

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _observe(self, outcome: Outcome, seconds: float) -> None:
        self._metrics.observe(outcome.service, outcome.operation, outcome.code, seconds)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._in_thread(self._lifecycle.start)
        except Exception as error:
            log.exception("the control plane could not start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._in_thread(self._lifecycle.stop)
        self._pool.shutdown(wait=False, cancel_futures=True)
        await send({"type": "lifespan.shutdown.complete"})


def _call(scope: Scope, headers: dict[bytes, bytes]) -> Call:
    def header(name: bytes) -> str:
        return headers.get(name, b"").decode("latin-1")

    return Call(
        scope=header(b"x-ridgeline-service"),
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"],
        target=header(b"x-amz-target"),
        content_type=header(b"content-type"),
        body=b"",
        principal=header(b"x-ridgeline-principal"),
        session=header(b"x-ridgeline-session"),
    )


async def _read_body(receive: Receive) -> bytes:
    """The whole body. Raises RequestTooLarge beyond the limit, after reading it to its end."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            chunks.clear()
        elif chunk:
            chunks.append(chunk)
        if not message.get("more_body"):
            break
    if size > MAX_BODY_BYTES:
        raise RequestTooLarge(
            f"The request has {size} bytes; at most {MAX_BODY_BYTES} are read here."
        )
    return b"".join(chunks)


def _unpacked(body: bytes, encoding: bytes) -> bytes:
    """The body without gzip, in which botocore sends large PutMetricData calls.

    Raises SerializationException, and RequestTooLarge for one that unpacks beyond the limit.
    """
    if encoding != b"gzip":
        return body
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacker.decompress(body, MAX_BODY_BYTES)
    except zlib.error:
        raise SerializationException("The body is not valid gzip.") from None
    if unpacker.unconsumed_tail:
        raise RequestTooLarge(f"The request unpacks to more than {MAX_BODY_BYTES} bytes.")
    if not unpacker.eof:
        raise SerializationException("The body is not valid gzip: it ends too early.")
    return unpacked


async def _send(send: Send, reply: Reply) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers.items()]
    headers.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def _rest_fault(error: RidgelineError) -> Reply:
    detail = {"code": error.code, "message": error.message, "hint": error.hint}
    return _json(error.http_status, {"error": detail})


def _json(status: int, content: object) -> Reply:
    return Reply(status, {"content-type": "application/json"}, json.dumps(content).encode())
