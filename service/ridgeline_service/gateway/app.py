"""The gateway as an ASGI application: who calls, which room answers, what is said on failure."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qs

from ridgeline.errors import RidgelineError
from ridgeline_service.errors import AccessDeniedException, InternalFailure, UnknownOperation
from ridgeline_service.gateway import invoke
from ridgeline_service.gateway.answers import Protocol, error_answer
from ridgeline_service.gateway.async_invoke import AsyncInvocations
from ridgeline_service.gateway.auth import Authenticator
from ridgeline_service.gateway.capture import Captures
from ridgeline_service.gateway.dispatch import Destination, Room, destination
from ridgeline_service.gateway.http import (
    ClientGone,
    Exchange,
    MethodNotAllowed,
    Receive,
    Scope,
    Send,
)
from ridgeline_service.gateway.invocations import Invocations
from ridgeline_service.gateway.limits import Limiter
from ridgeline_service.gateway.load_samples import LoadSamples
from ridgeline_service.gateway.metrics import Metrics
from ridgeline_service.gateway.openai import TASKS, OpenAI
from ridgeline_service.gateway.replicas import Replicas
from ridgeline_service.gateway.routing import Router
from ridgeline_service.gateway.scraping import Scraping
from ridgeline_service.gateway.upstream import ControlPlane, StorePassage
from ridgeline_service.snapshot import SnapshotReader
from ridgeline_service.telemetry.tracing import Tracing

MAX_CONTROL_BODY = 16 * 1024 * 1024
_HEALTHY = b'{"status":"ok"}'
_JSON = [("content-type", "application/json")]
_ROUTES_CHECKED_EVERY_S = 0.1
_TRACED = (Room.OPENAI, Room.RUNTIME)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rooms:
    """What the gateway is made of."""

    snapshots: SnapshotReader
    authenticator: Authenticator
    metrics: Metrics
    invocations: Invocations
    loads: LoadSamples
    captures: Captures
    scraping: Scraping
    router: Router
    replicas: Replicas
    control: ControlPlane
    store: StorePassage
    limiter: Limiter
    openai: OpenAI
    tracing: Tracing
    asynchronous: AsyncInvocations
    close: Callable[[], Awaitable[None]]


class GatewayApp:
    """``build`` makes the rooms once an event loop runs, when the server starts up."""

    def __init__(self, build: Callable[[], Awaitable[Rooms]], *, new_id: Callable[[], str]) -> None:
        self._build = build
        self._new_id = new_id
        self._rooms: Rooms | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http" or self._rooms is None:
            return
        rooms = self._rooms
        exchange = Exchange(scope, receive, send, self._new_id())
        to = destination(exchange)
        begun = time.perf_counter()
        if to.room in _TRACED:
            exchange.span = rooms.tracing.request(_span_name(exchange, to), exchange.headers)
        try:
            await self._answer(exchange, to, rooms)
        except ClientGone:
            exchange.status = 499
        except RidgelineError as error:
            await _fail(exchange, error, to.protocol)
        except Exception:  # noqa: BLE001 - the border: a bug is logged, its traceback never sent
            _log.exception("%s %s failed", exchange.method, exchange.path)
            failure = InternalFailure("An error of the service itself. Its log has the details.")
            await _fail(exchange, failure, to.protocol)
        if exchange.span.recording:
            exchange.span.set("ridgeline.endpoint", exchange.endpoint)
            exchange.span.set("http.response.status_code", exchange.status)
        exchange.span.end()
        if to.room is not Room.HEALTH:
            operation = to.operation if to.room is Room.RUNTIME else ""
            labels = (to.room.value, exchange.endpoint, operation)
            rooms.metrics.requests.labels(*labels, exchange.status).inc()
            rooms.metrics.seconds.labels(*labels).observe(time.perf_counter() - begun)

    async def _answer(self, exchange: Exchange, to: Destination, rooms: Rooms) -> None:
        if not exchange.raw_path.startswith("/"):
            # ``*`` and worse: behind an address of ours it would name another host.
            raise AccessDeniedException("The request names no path.", code="AccessDenied")
        authenticator = rooms.authenticator
        match to.room:
            case Room.HEALTH if exchange.method in ("GET", "HEAD"):
                await exchange.respond(200, _JSON, _HEALTHY)
            case Room.HEALTH:
                exchange.answer_headers.append(("allow", "GET, HEAD"))
                raise MethodNotAllowed(f"/healthz takes no {exchange.method}: ask with GET.")
            case Room.S3:
                await rooms.store.forward(exchange)
            case Room.RUNTIME:
                await self._runtime(exchange, to, rooms)
            case Room.CONTROL:
                caller, body = await authenticator.signed(exchange, MAX_CONTROL_BODY)
                if caller.service == "s3":
                    raise AccessDeniedException(
                        f"The request is signed for 's3', but asks for {_asked(exchange, body)}. "
                        "Sign it for the service of that operation.",
                        code="InvalidSignatureException",
                    )
                async with exchange.until_client_leaves():
                    await rooms.control.forward(
                        exchange, body, caller, caller.service, to.operation
                    )
            case Room.API:
                caller, body = await authenticator.either(exchange, MAX_CONTROL_BODY)
                async with exchange.until_client_leaves():
                    await rooms.control.forward(exchange, body, caller, "api", "")
            case Room.METRICS:
                await authenticator.either(exchange, MAX_CONTROL_BODY)
                async with exchange.until_client_leaves():
                    await rooms.scraping.answer(exchange)
            case Room.OPENAI:
                with exchange.span.child("auth"):
                    caller = authenticator.bearer(exchange)
                await rooms.openai.answer(exchange, to.operation, caller)

    async def _runtime(self, exchange: Exchange, to: Destination, rooms: Rooms) -> None:
        limit = invoke.MAX_BODY
        with exchange.span.child("auth"):
            caller, body = await rooms.authenticator.signed_for("sagemaker", exchange, limit)
        if exchange.method != "POST":
            raise UnknownOperation(f"{exchange.method} {exchange.path} is not an operation.")
        snapshot = rooms.snapshots.current
        if to.endpoint in snapshot().endpoints:
            # Only names that exist become labels: a stranger's guesses must not grow the metrics.
            exchange.endpoint = to.endpoint
        with exchange.span.child("route"):
            meter = rooms.limiter.admit(exchange, caller, body)
        if to.operation == "async-invocations":
            await rooms.asynchronous.accept(exchange, to.endpoint, body)
            return
        async with exchange.until_client_leaves():
            if to.operation == "invocations":
                await invoke.invoke(
                    exchange, to.endpoint, body, rooms.replicas, snapshot, meter, rooms.captures
                )
            else:
                await invoke.invoke_stream(
                    exchange, to.endpoint, body, rooms.replicas, snapshot, meter
                )

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        rooms = self._rooms = await self._build()
        watching = asyncio.create_task(_watch_routes(rooms))
        rooms.asynchronous.start()
        writers = [
            asyncio.create_task(each.run())
            for each in (rooms.invocations, rooms.loads, rooms.captures)
        ]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        watching.cancel()
        await rooms.asynchronous.stop()
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        await rooms.invocations.flush()
        await rooms.captures.flush()
        await rooms.close()
        await asyncio.to_thread(rooms.tracing.close)
        await send({"type": "lifespan.shutdown.complete"})


def _span_name(exchange: Exchange, to: Destination) -> str:
    """Names are few: an endpoint's is an attribute."""
    known = to.operation if to.room is Room.RUNTIME or to.operation in TASKS else "v1"
    return f"{exchange.method} {known}"


def _asked(exchange: Exchange, body: bytes) -> str:
    """The operation of a call to the control plane, as its client names it."""
    target = exchange.headers.get("x-amz-target", "")
    action = parse_qs(body.decode("latin-1")).get("Action", [""])[0] if not target else ""
    return (target or action or exchange.path)[:100]


async def _watch_routes(rooms: Rooms) -> None:
    """Wake those who wait for a replica when the control plane publishes new routes."""
    seen = rooms.snapshots.current()
    while True:
        await asyncio.sleep(_ROUTES_CHECKED_EVERY_S)
        newest = rooms.snapshots.current()
        if newest is not seen:
            seen = newest
            rooms.router.refresh()
            rooms.asynchronous.refresh()


async def _fail(exchange: Exchange, error: RidgelineError, protocol: Protocol) -> None:
    if exchange.started:
        # Half an answer is out. The server closes the connection when we return without ending
        # the body, so that the client cannot take it for a whole one.
        return
    status, headers, body = error_answer(error, protocol, exchange.request_id)
    await exchange.respond(status, headers, body)
