"""Passing requests on: buffered to the control plane, streamed to the object store.

Both listen on sockets that their supervisor holds open, so a connection made while one restarts is
answered when it is back; a connection that breaks in mid-call is an answer too (503, typed).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from ridgeline_service.errors import ServiceUnavailable
from ridgeline_service.gateway.auth import Caller
from ridgeline_service.gateway.http import HOP_BY_HOP, Exchange

_CONTROL_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15.0, sock_read=120.0)
_STORE_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15.0, sock_read=300.0)
_SKIP = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_READ_ONLY = ("Describe", "List", "Get", "Search", "Filter", "Simulate")


class ControlPlane:
    """The control plane behind ``url``. ``internal_key`` tells it that we speak for the caller."""

    def __init__(self, session: aiohttp.ClientSession, url: str, internal_key: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._internal_key = internal_key

    async def forward(
        self, exchange: Exchange, body: bytes, caller: Caller, service: str, operation: str
    ) -> None:
        """Ask the control plane and pass its answer on. Raises ServiceUnavailable."""
        headers = _passed_on(exchange)
        headers["X-Ridgeline-Internal"] = self._internal_key
        headers["X-Ridgeline-Principal"] = caller.principal
        headers["X-Ridgeline-Service"] = service
        again = exchange.method == "GET" or operation.startswith(_READ_ONLY)
        while True:
            try:
                async with self._session.request(
                    exchange.method,
                    _url(self._url, exchange),
                    data=body or None,
                    headers=headers,
                    skip_auto_headers=_SKIP,
                    allow_redirects=False,
                    timeout=_CONTROL_TIMEOUT,
                ) as response:
                    text = await response.read()
                    break
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
    """S3, streamed both ways with the Host header that was signed; the store verifies."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def forward(self, exchange: Exchange) -> None:
        """Raises ServiceUnavailable, or lets the connection drop if the answer had begun."""
        headers = _passed_on(exchange)
        has_body = (
            exchange.headers.get("content-length", "0") != "0"
            or "transfer-encoding" in exchange.headers
        )
        if "content-length" in exchange.headers:
            headers["Content-Length"] = exchange.headers["content-length"]
        try:
            async with self._session.request(
                exchange.method,
                _url(self._url, exchange),
                data=_body(exchange) if has_body else None,
                headers=headers,
                skip_auto_headers=_SKIP,
                allow_redirects=False,
                timeout=_STORE_TIMEOUT,
            ) as response:
                await self._answer(exchange, response, uploading=has_body)
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


async def _body(exchange: Exchange) -> AsyncIterator[bytes]:
    async for piece in exchange.stream():
        yield piece


def _passed_on(exchange: Exchange) -> CIMultiDict[str]:
    return CIMultiDict(
        (name, value)
        for name, value in exchange.header_list
        if name not in HOP_BY_HOP
        and name != "content-length"
        and not name.startswith("x-ridgeline-")
    )


def _answered(response: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    dropped = HOP_BY_HOP | {"content-length", "date", "server", "x-amzn-requestid"}
    return [
        (name, value) for name, value in response.headers.items() if name.lower() not in dropped
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
