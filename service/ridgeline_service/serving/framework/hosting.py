"""The HTTP face of the framework server: /ping, /ridgeline/identity and /invocations.

HTTP/1.1 with keep-alive, bodies by length or in chunks both ways. Every route wants the replica's
token. It knows the state of the model and passes requests on to the workers; what a request means
is the toolkit's.
"""

from __future__ import annotations

import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from ridgeline_service.serving.framework.errors import BadRequest, HostingError
from ridgeline_service.serving.framework.jobs import Workers
from ridgeline_service.serving.framework.settings import HostingSettings
from ridgeline_service.serving.framework.toolkit import Request, UserModel

_MAX_CHUNK_LINE = 1024


class PayloadTooLarge(HostingError):
    """The body is longer than SAGEMAKER_MAX_PAYLOAD_IN_MB."""

    status = 413


class Hosting:
    """What this replica is and does at the moment. Thread-safe."""

    def __init__(self, settings: HostingSettings) -> None:
        self.settings = settings
        self.model: UserModel | None = None
        self.idle = threading.Condition()
        self.in_flight = 0
        self.stage_seconds: list[tuple[str, float]] = []
        self.workers = Workers(settings.workers, settings.timeout_s)
        self._current: tuple[str, float] | None = None
        self._error: dict[str, str] | None = None

    @property
    def is_loading(self) -> bool:
        return self.model is None and self._error is None

    @property
    def state(self) -> str:
        if self._error is not None:
            return "failed"
        if self.model is not None:
            return "ready"
        return "loading" if self._current or self.stage_seconds else "starting"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a step of the start."""
        started = time.monotonic()
        self._current = (name, started)
        yield
        self._current = None
        self.stage_seconds.append((name, time.monotonic() - started))

    def fail(self, error: BaseException) -> None:
        """The model could not be loaded, for this reason."""
        stage = self._current[0] if self._current else "start"
        kind = type(error).__name__
        if isinstance(error, HostingError):
            message = str(error)
        else:
            message = (
                f"{stage} failed: {kind}: {error}" if str(error) else f"{stage} failed: {kind}"
            )
        self._error = {"code": kind, "message": message, "hint": _hint(error)}

    def identity(self) -> dict[str, Any]:
        stages = [
            {"name": name, "seconds": round(seconds, 3), "state": "done"}
            for name, seconds in tuple(self.stage_seconds)
        ]
        current = self._current
        if current is not None:
            state = "failed" if self._error else "running"
            seconds = round(time.monotonic() - current[1], 3)
            stages.append({"name": current[0], "seconds": seconds, "state": state})
        return {
            "replica_id": self.settings.replica_id,
            "state": self.state,
            "stages": stages,
            "task": "",
            "error": self._error,
            "in_flight": self.in_flight,
        }

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as in flight."""
        with self.idle:
            self.in_flight += 1
        try:
            yield
        finally:
            with self.idle:
                self.in_flight -= 1
                self.idle.notify_all()


def _hint(error: BaseException) -> str:
    """What to do about a model that could not be loaded, where that is known."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    package = error.name.partition(".")[0]
    return f"Add {package} to code/requirements.txt of the model, or correct the import."


class HostingServer(ThreadingMixIn, TCPServer):
    """A thread per connection, on a socket that listens already."""

    daemon_threads = True
    block_on_close = False
    draining = False

    def __init__(self, hosting: Hosting, listener: socket.socket) -> None:
        super().__init__(listener.getsockname(), _Connection, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.hosting = hosting

    def serve(self) -> None:
        """Accept until the process ends; the long poll keeps an idle server asleep."""
        self.serve_forever(poll_interval=3600)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """New connections are closed while the server drains."""
        return not self.draining

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ridgeline"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: HostingServer

    def do_GET(self) -> None:
        if not self._is_allowed():
            return
        hosting = self.server.hosting
        if self.path == "/ping":
            status = 200 if hosting.state == "ready" else 503
            self._answer_json(status, {"status": hosting.state})
        elif self.path == "/ridgeline/identity":
            self._answer_json(200, hosting.identity())
        else:
            self._answer_error(404, f"There is no {self.path} here.")

    def do_POST(self) -> None:
        if not self._is_allowed():
            return
        hosting = self.server.hosting
        if self.path != "/invocations":
            self._answer_error(404, f"There is no {self.path} here.", close=True)
            return
        try:
            body = self._body(hosting.settings.max_payload_bytes)
        except HostingError as error:
            self._answer_error(error.status, str(error), close=True)
            return
        if hosting.model is None:
            self._answer_error(503, f"The model is not ready: it is {hosting.state}.")
            return
        with hosting.request():
            self._invoke(hosting.model, body)

    def _invoke(self, model: UserModel, body: bytes) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        headers.pop("x-ridgeline-token", None)
        request = Request(
            body=body,
            content_type=headers.get("content-type") or "application/json",
            accept=headers.get("accept", ""),
            headers=headers,
        )
        job = self.server.hosting.workers.submit(model, request)
        try:
            answer, parts = job.answer()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if parts is None:
                assert isinstance(answer.body, bytes)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)
                self.wfile.flush()
            else:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self._send_parts(parts)
        except HostingError as error:
            self._answer_error(error.status, str(error))
        except OSError:
            job.cancel()
            raise

    def _send_parts(self, parts: Iterator[bytes]) -> None:
        """A stream that breaks is closed without its last chunk, so that the client can tell."""
        self.wfile.flush()
        try:
            for part in parts:
                if part:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                    self.wfile.flush()
        except HostingError:
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _is_allowed(self) -> bool:
        given = self.headers.get("X-Ridgeline-Token", "")
        wanted = self.server.hosting.settings.token
        if hmac.compare_digest(given.encode(), wanted.encode()):
            return True
        self._answer_error(403, "The replica's token is missing or wrong.", close=True)
        return False

    def _body(self, limit: int) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._chunked_body(limit)
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            raise BadRequest("Content-Length is not a number.") from None
        if length > limit:
            raise PayloadTooLarge(f"The body has {length} bytes; {limit} are allowed.")
        body = self.rfile.read(length)
        if len(body) < length:
            raise BadRequest("The body ended before its Content-Length.")
        return body

    def _chunked_body(self, limit: int) -> bytes:
        parts: list[bytes] = []
        total = 0
        while True:
            line = self.rfile.readline(_MAX_CHUNK_LINE)
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                raise BadRequest("The body has a chunk without a size.") from None
            total += size
            if size < 0 or total > limit:
                raise PayloadTooLarge(f"The body is longer than the {limit} bytes allowed.")
            if size == 0:
                while self.rfile.readline(_MAX_CHUNK_LINE).strip():
                    continue  # trailers mean nothing here
                return b"".join(parts)
            parts.append(self.rfile.read(size))
            self.rfile.readline(_MAX_CHUNK_LINE)

    def _answer_json(self, status: int, value: dict[str, Any]) -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
        self.wfile.flush()

    def _answer_error(self, status: int, message: str, *, close: bool = False) -> None:
        """In the shape of the toolkits' model server. ``close`` where the body was not read."""
        self.close_connection = self.close_connection or close
        kinds = {415: "UnsupportedMediaType", 503: "ServiceUnavailableException"}
        kind = kinds.get(status, "BadRequestException")
        if status == 500:
            kind = "InternalServerException"
        self._answer_json(status, {"code": status, "type": kind, "message": message})

    def log_message(self, format: str, *args: Any) -> None:
        """No access log: the log is the user's."""
