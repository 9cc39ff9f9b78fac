"""Passing requests on: buffered to the control plane, streamed to the object store.

Both listen on sockets that their supervisor holds open, so a connection made while one restarts is
answered when it is back. One that does not come back, or hangs, would be waited for without end:
the wait for an answer's head has a limit. Past it, as when a connection breaks in mid-call, the
answer is a typed 503. What was asked may have been done all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from ridgeline_service.errors import ServiceUnavailable
from ridgeline_service.gateway.auth import Caller
from ridgeline_service.gateway.http import HOP_BY_HOP, Exchange, wire_headers

_CONTROL_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15.0, sock_read=120.0)
_STORE_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15.0, sock_read=300.0)
_SKIP = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_READ_ONLY = ("Describe", "List", "Get", "Search", "Filter", "Simulate")


class ControlPlane:
    """The control plane behind ``url``. ``internal_key`` tells it that we speak for the caller.
    The head of its answer is waited for ``wait_s``, a second attempt included."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, internal_key: str, *, wait_s: float
    ) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._internal_key = internal_key
        self._wait_s = wait_s

    async def forward(
        self, exchange: Exchange, body: bytes, caller: Caller, service: str, operation: str
    ) -> None:
        """Ask the control plane and pass its answer on. Raises ServiceUnavailable."""
        headers = _passed_on(exchange)
        headers["X-Ridgeline-Internal"] = self._internal_key
        headers["X-Ridgeline-Principal"] = caller.principal
        if caller.until is not None:
            headers["X-Ridgeline-Session"] = f"{int(caller.until.timestamp())} {caller.session}"
        headers["X-Ridgeline-Service"] = service
        again = exchange.method == "GET" or operation.startswith(_READ_ONLY)
        deadline = asyncio.get_running_loop().time() + self._wait_s
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    response = await self._session.request(
                        exchange.method,
                        _url(self._url, exchange),
                        data=body or None,
                        headers=headers,
                        skip_auto_headers=_SKIP,
                        allow_redirects=False,
                        timeout=_CONTROL_TIMEOUT,
                    )
                async with response:
                    text = await response.read()
                    break
            except TimeoutError:
                raise ServiceUnavailable(
                    "The control plane does not answer. Running endpoints go on; see "
                    "logs/control.log in the data directory."
                ) from None
            except (aiohttp.ClientError, OSError) as error:
                # What only reads may be asked twice; anything else may have been done already.
                if not again:
                    raise ServiceUnavailable(
                        "The control plane went away in mid-call "
                        f"({type(error).__name__}). It comes back by itself: try again."
                    ) from None
                again = False
        await exchange.respond(response.status, _answered(response), text)


class StorePassage:
    """S3, streamed both ways with the Host header that was signed; the store verifies.
    It may take ``wait_s`` over a piece of the body, and over the head of its answer."""

    def __init__(self, session: aiohttp.ClientSession, url: str, *, wait_s: float) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._wait_s = wait_s

    async def forward(self, exchange: Exchange) -> None:
        """Raises ServiceUnavailable, or lets the connection drop if the answer had begun."""
        headers = _passed_on(exchange)
        has_body = (
            exchange.headers.get("content-length", "0") != "0"
            or "transfer-encoding" in exchange.headers
        )
        if "content-length" in exchange.headers:
            headers["Content-Length"] = exchange.headers["content-length"]
        patience = _Patience(self._wait_s)
        try:
            async with patience:
                response = await self._session.request(
                    exchange.method,
                    _url(self._url, exchange),
                    data=_body(exchange, patience) if has_body else None,
                    headers=headers,
                    skip_auto_headers=_SKIP,
                    allow_redirects=False,
                    timeout=_STORE_TIMEOUT,
                )
            async with response:
                await self._answer(exchange, response, uploading=has_body)
        except TimeoutError:
            raise ServiceUnavailable(
                "The object store does not answer. Try again; see logs/objects.log in the data "
                "directory."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ServiceUnavailable(
                f"The object store went away in mid-call ({type(error).__name__}). "
                "It comes back by itself: try again."
            ) from None

    async def _answer(
        self, exchange: Exchange, response: aiohttp.ClientResponse, *, uploading: bool
    ) -> None:
        headers = _answered(response)
        if "Content-Length" in response.headers:
            headers.append(("content-length", response.headers["Content-Length"]))
        await exchange.start(response.status, headers)
        if exchange.method != "HEAD":
            # Where a body is still on its way up, the answer is a short refusal.
            guard = nullcontext() if uploading else exchange.until_client_leaves()
            async with guard:
                while chunk := await response.content.readany():
                    await exchange.write(chunk)
        await exchange.end()


class _Patience:
    """A time limit on its block that is off while ``pause``d: the client may take its time."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._timeout = asyncio.timeout(limit_s)
        self._over = False

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *failure: Any) -> None:
        # A refusal may come while the body is still being sent: from here on nothing is timed.
        self._over = True
        await self._timeout.__aexit__(*failure)

    def pause(self) -> None:
        self._reschedule(None)

    def resume(self) -> None:
        self._reschedule(asyncio.get_running_loop().time() + self._limit_s)

    def _reschedule(self, when: float | None) -> None:
        if not (self._over or self._timeout.expired()):
            self._timeout.reschedule(when)


async def _body(exchange: Exchange, patience: _Patience) -> AsyncIterator[bytes]:
    patience.pause()
    async for piece in exchange.stream():
        patience.resume()
        yield piece
        patience.pause()
    patience.resume()


def _passed_on(exchange: Exchange) -> CIMultiDict[str]:
    return CIMultiDict(
        (name, _as_aiohttp_writes(value))
        for name, value in exchange.header_list
        if name not in HOP_BY_HOP
        and name != "content-length"
        and not name.startswith("x-ridgeline-")
    )


def _as_aiohttp_writes(value: str) -> str:
    """Text whose UTF-8 is what came, byte for byte; what is no UTF-8 goes on as Latin-1 read it."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _answered(response: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    dropped = HOP_BY_HOP | {"content-length", "date", "server", "x-amzn-requestid"}
    return [
        (name, value)
        for name, value in wire_headers(response.raw_headers)
        if name.lower() not in dropped
    ]


def _url(base: str, exchange: Exchange) -> URL:
    query = f"?{exchange.query.decode('latin-1')}" if exchange.query else ""
    return URL(base + exchange.raw_path + query, encoded=True)


def make_session(**options: Any) -> aiohttp.ClientSession:
    """A session for loopback hops: no limits, no decoding, no proxies, no cookies."""
    return aiohttp.ClientSession(
        # Shorter than the idle time after which common servers hang up.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0, use_dns_cache=True),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        max_line_size=64 * 1024,
        max_field_size=64 * 1024,
        **options,
    )
