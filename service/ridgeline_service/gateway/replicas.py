"""Calls to replicas: retried on another one until the first byte of an answer was seen.

A replica that cannot be connected to, or says that it did not begin, is passed over at once. One
that breaks off in the middle may have been broken by the request: that is sent once more, and only
if no other replica broke off at it lately.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import aiohttp
from yarl import URL

from ridgeline_service.errors import ServiceUnavailable
from ridgeline_service.gateway.invocations import Invocations
from ridgeline_service.gateway.limits import UNMETERED, Meter
from ridgeline_service.gateway.metrics import Metrics
from ridgeline_service.gateway.replica_answers import (
    BROKE_OFF,
    TIMED_OUT,
    AnswerTooLarge,
    ReplicaLost,
    ReplicaTimeout,
    Streaming,
    Whole,
    killed,
    lost,
    timed_out,
)
from ridgeline_service.gateway.routing import Lease, Router
from ridgeline_service.gateway.suspects import Suspects
from ridgeline_service.replica_protocol import (
    UNSERVED_HEADER,
    USAGE_HEADER,
)
from ridgeline_service.telemetry.tracing import NO_SPAN, Span


@dataclass(frozen=True)
class Call:
    """One request to whichever replica of an endpoint. ``target`` names a variant, or is empty;
    ``timeout_s`` is what the replica may take to a first byte, where it is not the usual. Whether
    to ``resend`` one that a replica broke off at is decided here, or by the caller."""

    endpoint: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    target: str = ""
    timeout_s: float | None = None
    resend: bool = True
    meter: Meter = UNMETERED
    span: Span = NO_SPAN


class Replicas:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        router: Router,
        metrics: Metrics,
        invocations: Invocations,
        *,
        answer_s: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``answer_s`` is the time limit of calls that name none; ``clock`` gives seconds."""
        self._session = session
        self._router = router
        self._metrics = metrics
        self._invocations = invocations
        self._answer_s = answer_s
        self._clock = clock
        self._suspects = Suspects(clock)

    async def fetch(self, call: Call, limit: int) -> Whole:
        """The whole answer; since nothing was passed on before, a break anywhere is retried.
        Raises AnswerTooLarge for one of more than ``limit`` bytes."""
        tries = _Tries(self._clock())
        while True:
            lease = await self._acquire(call, tries)
            try:
                async with self._send(call, lease) as answer:
                    body = await answer.read(limit)
                    self._record(lease, answer.status, tries)
                    return Whole(answer.status, answer.headers, body, lease)
            except AnswerTooLarge:
                self._record(lease, answer.status, tries)
                raise
            except (_Unreachable, ReplicaLost, ReplicaTimeout) as error:
                await self._go_on_after(error, call, lease, tries)
            finally:
                lease.release()

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Streaming]:
        """The answer's head, with its body to come; retried until the head is here."""
        tries = _Tries(self._clock())
        while True:
            lease = await self._acquire(call, tries)
            sending = self._send(call, lease)
            try:
                answer = await sending.__aenter__()
                break
            except (_Unreachable, ReplicaLost, ReplicaTimeout) as error:
                lease.release()
                await self._go_on_after(error, call, lease, tries)
            except BaseException:
                lease.release()
                raise
        try:
            yield answer
        finally:
            await sending.__aexit__(None, None, None)
            lease.release()
            self._record(lease, answer.failed or answer.status, tries)

    async def _go_on_after(
        self,
        error: _Unreachable | ReplicaLost | ReplicaTimeout,
        call: Call,
        lease: Lease,
        tries: _Tries,
    ) -> None:
        """Returns if another replica may be asked. Raises what the client is told otherwise."""
        if isinstance(error, ReplicaTimeout):
            self._record(lease, TIMED_OUT, tries)
            raise error
        if isinstance(error, ReplicaLost):
            again = await self._suspects.broke(call.endpoint, call.body, lease.replica.replica_id)
            if again or tries.resent or not call.resend:
                self._record(lease, BROKE_OFF, tries)
                # Of several that worked on it nobody knows which one it was.
                raise killed(lease) if again and lease.alone else error
            tries.resent = True
        else:
            tries.excluded.add(lease.replica.replica_id)
        self._metrics.retries.labels(call.endpoint).inc()

    def _record(self, lease: Lease, status: int, tries: _Tries) -> None:
        model_s, overhead_s = self._clock() - tries.sent_at, tries.sent_at - tries.begun_at
        self._invocations.record(lease, status, model_s=model_s, overhead_s=overhead_s)

    async def _acquire(self, call: Call, tries: _Tries) -> Lease:
        try:
            with call.span.child("wait"):
                lease = await self._router.acquire(
                    call.endpoint, target=call.target, excluded=tries.excluded
                )
            tries.sent_at = self._clock()
            return lease
        except BaseException:
            # It never ran, so it used nothing.
            call.meter.settle(None)
            raise

    def _send(self, call: Call, lease: Lease) -> _Sending:
        headers = {
            **call.headers,
            "X-Ridgeline-Token": lease.replica.token,
            "Accept-Encoding": "identity",
        }
        if call.meter.counts:
            headers[USAGE_HEADER] = "1"
        span = call.span.child("upstream")
        headers.update(span.headers())
        span.set("ridgeline.variant", lease.variant.name)
        span.set("ridgeline.replica", lease.replica.replica_id)
        limit = self._answer_s if call.timeout_s is None else call.timeout_s
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=limit)
        request = self._session.post(
            _url(lease.replica.url, call.path), data=call.body, headers=headers, timeout=timeout
        )
        return _Sending(request, lease, limit, call.meter, span)


@dataclass
class _Tries:
    """What one call has met so far, and when it began and was last sent."""

    begun_at: float
    sent_at: float = 0.0
    resent: bool = False
    excluded: set[str] = field(default_factory=set)


class _Unreachable(ServiceUnavailable):
    """No connection, or the replica did not take the request: nothing of it was done."""


class _Sending:
    """aiohttp's request context, with its failures in our words."""

    def __init__(
        self,
        request: aiohttp.client._RequestContextManager,
        lease: Lease,
        timeout_s: float,
        meter: Meter,
        span: Span,
    ) -> None:
        self._request = request
        self._lease = lease
        self._timeout_s = timeout_s
        self._meter = meter
        self._span = span
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> Streaming:
        try:
            return await self._answer()
        except BaseException as error:
            self._span.fail(type(error).__name__)
            self._span.end()
            raise

    async def _answer(self) -> Streaming:
        try:
            # The session's own limit starts when the body was sent; a replica that hangs may
            # never take it.
            async with asyncio.timeout(self._timeout_s):
                self._response = await self._request
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
            if isinstance(error, aiohttp.SocketTimeoutError):
                raise timed_out(self._lease, self._timeout_s) from None
            raise _Unreachable(f"Replica {self._lease.replica.replica_id}: {error}") from None
        except TimeoutError:
            raise timed_out(self._lease, self._timeout_s) from None
        except (aiohttp.ClientError, OSError) as error:
            raise lost(self._lease, error) from None
        if self._response.status == 503 and UNSERVED_HEADER in self._response.headers:
            self._response.close()
            raise _Unreachable(f"Replica {self._lease.replica.replica_id} refused it.")
        return Streaming(self._response, self._lease, self._timeout_s, self._meter)

    async def __aexit__(self, *_: object) -> None:
        if self._response is not None:
            # Closes the connection if the body was not read to its end, which is how the model
            # server learns that nobody listens any more; else it goes back to the pool.
            if self._response.content.at_eof():
                self._response.release()
            else:
                self._response.close()
            self._span.set("http.response.status_code", self._response.status)
        self._span.end()


@lru_cache(maxsize=4096)
def _url(base: str, path: str) -> URL:
    return URL(base.rstrip("/") + path, encoded=True)
