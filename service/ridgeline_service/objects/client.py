"""How our own processes reach the object store from an event loop: aiohttp, and whole objects,
which is what asynchronous invocations need. Works against any S3 endpoint that takes path-style
addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import aiohttp
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from yarl import URL

from ridgeline.errors import InvalidInput, NotFound, RidgelineError, Unavailable
from ridgeline_service.snapshot import Credential


@dataclass(frozen=True)
class FetchedObject:
    body: bytes
    content_type: str


class StoreRefused(RidgelineError):
    """The store answered with an error of its own: trying again does not help."""

    code = "ObjectStoreError"
    http_status = 502


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of ``s3://BUCKET/KEY``. Raises InvalidInput."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise InvalidInput(f"{uri!r} is not an S3 location of the form s3://BUCKET/KEY")
    return bucket, key


class AsyncObjectClient:
    """Get and put whole objects. Raises NotFound, StoreRefused, or Unavailable (try again)."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        store_url: str,
        credential: Callable[[], Credential],
        region: str = "us-east-1",
    ) -> None:
        self._session = session
        self._url = store_url.rstrip("/")
        self._credential = credential
        self._region = region

    async def get(self, uri: str, *, limit: int) -> FetchedObject:
        """Raises InvalidInput if the object has more than ``limit`` bytes."""
        async with self._call("GET", uri, b"", {}) as response:
            await _check(response, uri)
            if (response.content_length or 0) > limit:
                raise InvalidInput(f"{uri} has {response.content_length} bytes, limit {limit}")
            body = await response.read()
            return FetchedObject(body, response.headers.get("Content-Type", ""))

    async def put(self, uri: str, body: bytes, headers: Mapping[str, str]) -> None:
        async with self._call("PUT", uri, body, headers) as response:
            await _check(response, uri)

    def _call(self, method: str, uri: str, body: bytes, headers: Mapping[str, str]) -> _Call:
        bucket, key = parse_s3_uri(uri)
        url = f"{self._url}/{bucket}/{quote(key, safe='/~')}"
        request = AWSRequest(method=method, url=url, data=body, headers=dict(headers))
        credential = self._credential()
        keys = ReadOnlyCredentials(credential.access_key_id, credential.secret_access_key, None)
        S3SigV4Auth(keys, "s3", self._region).add_auth(request)
        signed = dict(request.headers.items())
        context = self._session.request(
            method, URL(url, encoded=True), data=body or None, headers=signed
        )
        return _Call(context, uri)


class _Call:
    """A request as a context manager that says Unavailable whatever way the network fails."""

    def __init__(self, context: Any, uri: str) -> None:
        self._context = context
        self._uri = uri

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            response: aiohttp.ClientResponse = await self._context.__aenter__()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"The object store did not answer for {self._uri}: {error}") from None
        return response

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        await self._context.__aexit__(kind, error, trace)
        if isinstance(error, aiohttp.ClientError | TimeoutError | OSError):
            raise Unavailable(f"The object store broke off at {self._uri}: {error}") from None


async def _check(response: aiohttp.ClientResponse, uri: str) -> None:
    if response.status < 300:
        return
    text = await response.text(errors="replace")
    if response.status == 404:
        raise NotFound(f"{uri} does not exist")
    if response.status >= 500:
        raise Unavailable(f"The object store answered {response.status} for {uri}")
    raise StoreRefused(f"{uri}: {_message(text) or response.status}")


def _message(document: str) -> str:
    # Written by our own store or the S3 endpoint that the owner chose.
    try:
        root = ElementTree.fromstring(document)  # noqa: S314
    except ElementTree.ParseError:
        return ""
    return root.findtext("Message") or ""
