"""Calls to the service's own REST API (``/api``): what AWS has no verb for.

Signed with SigV4 as service ``sagemaker``, with the same keys as everything else, over botocore's
HTTP session: no second HTTP library, no second kind of key. Knows nothing of what is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session

from ridgeline._translate import error_from, retry_after, translated
from ridgeline.errors import Unavailable

_TIMEOUT_S = (5.0, 30.0)


class Sender(Protocol):
    """The seam for fakes: sends one prepared request, as botocore's HTTP session does."""

    def send(self, request: Any) -> Any: ...


class Api:
    """A signed client of one service's ``/api``; ``sender`` is botocore's own unless given."""

    def __init__(
        self,
        url: str,
        region: str,
        credentials: Credentials,
        *,
        start_hint: str = "",
        silent_hint: str = "",
        proxies: Mapping[str, str] | None = None,
        sender: Sender | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._region = region
        self._credentials = credentials
        self._start_hint = start_hint
        self._silent_hint = silent_hint
        self._sender = sender or URLLib3Session(timeout=_TIMEOUT_S, proxies=proxies)

    def get(self, *path: str, **query: str | int | None) -> Any:
        """GET ``/api/<path>``; parts of the path are quoted, absent query members left out."""
        return self._call("GET", path, query, None)

    def post(self, *path: str, body: Mapping[str, object]) -> Any:
        return self._call("POST", path, {}, json.dumps(body).encode())

    def delete(self, *path: str) -> Any:
        return self._call("DELETE", path, {}, None)

    def metrics(self, *path: str) -> str:
        """GET ``/metrics/<path>``: what a Prometheus server reads there, as text."""
        where = "/".join(quote(part, safe="-._~") for part in ("metrics", *path))
        return self._sent("GET", f"{self._url}/{where}", None, "*/*").decode()

    def _call(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, str | int | None],
        body: bytes | None,
    ) -> Any:
        where = "/".join(quote(part, safe="-._~") for part in path)
        given = {name: value for name, value in query.items() if value is not None}
        url = f"{self._url}/api/{where}" + (f"?{urlencode(given)}" if given else "")
        content = self._sent(method, url, body, "application/json")
        if not content:
            return None
        try:
            return json.loads(content)
        except ValueError:
            raise Unavailable(
                f"{url} answered, but not with JSON.",
                hint="Is this address a Ridgeline service? See `ridgeline up`.",
            ) from None

    def _sent(self, method: str, url: str, body: bytes | None, accept: str) -> bytes:
        """The content of a good answer to one signed request."""
        request = AWSRequest(method=method, url=url, data=body, headers={"Accept": accept})
        if body is not None:
            request.headers["Content-Type"] = "application/json"
        SigV4Auth(self._credentials, "sagemaker", self._region).add_auth(request)
        with translated(self._url, start_hint=self._start_hint, silent_hint=self._silent_hint):
            answer = self._sender.send(request.prepare())
            status, headers, content = answer.status_code, answer.headers, answer.content
        if status >= 400:
            raise _api_error(status, dict(headers), content, urlsplit(url).path)
        found: bytes = content
        return found


def _api_error(status: int, headers: Mapping[str, str], content: bytes, path: str) -> Exception:
    code, message, hint = "", "", ""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict):
            code = str(inner.get("code") or inner.get("__type") or "")
            message = str(inner.get("message") or inner.get("Message") or inner.get("detail") or "")
            hint = str(inner.get("hint") or "")
    return error_from(
        code,
        message or f"{path} answered with HTTP status {status}.",
        status,
        hint=hint,
        retry_after_s=retry_after(headers),
    )
