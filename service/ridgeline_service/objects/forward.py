"""Another S3 in place of the folder: requests verified here go on to it, signed with its own key.

Clients keep the keys of this service, and nothing but this process knows those of the other one.
Bodies stream; the last bytes are held back until the body has proved to be the signed one, so a
tampered upload never becomes complete at the other end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from botocore.auth import UNSIGNED_PAYLOAD, S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from nanio.errors import S3Error
from yarl import URL

from ridgeline_service.objects.http import OVERRIDES, S3Request, kept_headers
from ridgeline_service.objects.payload import Payload
from ridgeline_service.security.sigv2 import SIGV2_FIELDS
from ridgeline_service.snapshot import Credential

_NOT_SENT = frozenset(
    (
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "user-agent",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-decoded-content-length",
        "x-amz-sdk-checksum-algorithm",
        "x-amz-security-token",
        "x-amz-source-expected-bucket-owner",
        "x-amz-trailer",
        "x-amz-expected-bucket-owner",
    )
)
_NOT_ANSWERED = frozenset((b"connection", b"date", b"keep-alive", b"server", b"transfer-encoding"))


class UpstreamUnavailable(S3Error):  # type: ignore[misc]
    code = "ServiceUnavailable"
    message = "The S3 endpoint of the settings does not answer. Please try again."
    http_status = 503


class _Signer(S3SigV4Auth):  # type: ignore[misc]
    """The body was verified already and is on its way: it is not hashed again."""

    def payload(self, request: AWSRequest) -> str:
        return str(UNSIGNED_PAYLOAD)


class Forwarder:
    """The S3 at ``endpoint``. Its session opens at the first request, on the running loop."""

    def __init__(self, endpoint: str, credential: Credential, region: str) -> None:
        self._endpoint = endpoint.rstrip("/")
        keys = ReadOnlyCredentials(credential.access_key_id, credential.secret_access_key, None)
        self._signer = _Signer(keys, "s3", region)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def pass_on(
        self, request: S3Request, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]
    ) -> None:
        """Ask the other S3 and stream its answer. Raises nanio's S3Error before the first byte."""
        started = False
        try:
            async with self._ask(request) as response:
                headers = [
                    (name.lower(), value)
                    for name, value in response.raw_headers
                    if name.lower() not in _NOT_ANSWERED
                ]
                started = True
                status = response.status
                await send({"type": "http.response.start", "status": status, "headers": headers})
                if request.method != "HEAD":
                    while chunk := await response.content.readany():
                        body = {"type": "http.response.body", "body": chunk, "more_body": True}
                        await send(body)
                await send({"type": "http.response.body", "body": b""})
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error.__cause__, S3Error):
                raise error.__cause__ from None
            if not started:
                raise UpstreamUnavailable() from None
            # Half an answer is out: ending without the rest makes the server hang up.

    def _ask(self, request: S3Request) -> aiohttp.client._RequestContextManager:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=300),
            )
        address = "/".join(filter(None, (request.bucket, quote(request.key, safe="/~"))))
        query = {name: value for name, value in request.query.items() if _is_sent(name)}
        encoded = f"?{urlencode(query, quote_via=quote)}" if query else ""
        url = f"{self._endpoint}/{address}{encoded}"
        sent = {n: v for n, v in request.headers.items() if n not in _NOT_SENT}
        for name in ("content-type", "content-encoding"):
            if name in request.headers and name in kept_headers(request.headers):
                sent[name] = kept_headers(request.headers)[name]
        signed = AWSRequest(request.method, url, headers=sent)
        self._signer.add_auth(signed)
        headers = dict(signed.headers.items())
        length = request.headers.get(
            "x-amz-decoded-content-length", request.headers.get("content-length", "0")
        )
        if length != "0" or request.method in ("PUT", "POST"):
            headers["Content-Length"] = length
        return self._session.request(
            request.method,
            URL(url, encoded=True),
            headers=headers,
            data=_held_back(request.payload) if length != "0" else None,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )


def _is_sent(parameter: str) -> bool:
    """The signature stays here, and what a link's holder may have added to it: another S3 may read
    the names of ``OVERRIDES`` in any spelling."""
    if parameter.lower().startswith("response-"):
        return parameter in OVERRIDES
    return not parameter.lower().startswith("x-amz-") and parameter not in SIGV2_FIELDS


async def _held_back(payload: Payload) -> AsyncIterator[bytes]:
    """The body, its last piece only after all of it was verified."""
    held = b""
    async for piece in payload:
        if held:
            yield held
        held = piece
    yield held
