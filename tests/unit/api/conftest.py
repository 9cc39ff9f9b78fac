"""What the API's tests share: a control plane in memory, and callers that need no socket."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import uvicorn
from botocore.config import Config
from hypothesis import settings

from ridgeline_service.api.app import App
from ridgeline_service.api.assemble import build_app
from ridgeline_service.api.shapes import BY_SCOPE
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings

from .fakes import FakeControl

# Properties are checked for truth here, not for speed: a busy machine must not fail them.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

INTERNAL_KEY = "internal"
SETTINGS = Settings()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Direct:
    """Calls an ASGI application in process, as the gateway would over HTTP."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        self._loop.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        service: str = "sagemaker",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        query: bytes = b"",
        key: str | None = INTERNAL_KEY,
    ) -> Answer:
        sent = {"x-ridgeline-service": service, "x-ridgeline-principal": "RLAKTEST"}
        if key is not None:
            sent["x-ridgeline-internal"] = key
        sent.update({name.lower(): value for name, value in (headers or {}).items()})
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "root_path": "",
            "headers": [(k.encode(), v.encode("latin-1", "replace")) for k, v in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        return self._loop.run_until_complete(self._run(scope, body))

    def call(self, operation: str, body: object, *, service: str = "sagemaker") -> Answer:
        """An AWS JSON call."""
        return self.send(
            "POST",
            "/",
            service=service,
            headers={
                "content-type": "application/x-amz-json-1.1",
                "x-amz-target": f"{BY_SCOPE[service].target}.{operation}",
            },
            body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        )

    async def _run(self, scope: dict[str, Any], body: bytes) -> Answer:
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        answer: dict[str, Any] = {"body": b""}

        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
                answer["headers"] = {k.decode().lower(): v.decode() for k, v in message["headers"]}
            else:
                answer["body"] += message.get("body", b"")

        await self.app(scope, receive, send)
        return Answer(answer["status"], answer["headers"], answer["body"])


class Served:
    """The application behind a real socket, as botocore's HTTP client needs it."""

    def __init__(self, app: App) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        config = uvicorn.Config(app, lifespan="on", access_log=False, log_level="warning")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listening]}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def client(self, name: str, **options: Any) -> Any:
        """A boto3 client whose calls carry what the gateway would add."""
        client = boto3.client(
            name,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="RLAKTEST",
            aws_secret_access_key="secret",
            config=Config(retries={"total_max_attempts": 1}, **options),
        )

        service = client.meta.service_model.signing_name

        def as_gateway(request: Any, **_: Any) -> None:
            request.headers["X-Ridgeline-Internal"] = INTERNAL_KEY
            request.headers["X-Ridgeline-Service"] = service
            request.headers["X-Ridgeline-Principal"] = "RLAKTEST"

        client.meta.events.register("before-send", as_gateway)
        return client


@pytest.fixture(scope="module")
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def app(control: FakeControl, folder: Path) -> App:
    return build_app(control, SETTINGS, DataDir(folder), internal_key=INTERNAL_KEY)


@pytest.fixture(scope="module")
def direct(app: App) -> Iterator[Direct]:
    caller = Direct(app)
    yield caller
    caller.close()


@pytest.fixture(scope="module")
def served(app: App) -> Iterator[Served]:
    server = Served(app)
    yield server
    server.close()
