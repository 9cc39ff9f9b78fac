"""A gateway in this process, with a fake replica, a fake control plane and a real object store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
import uvicorn
from aiohttp import web
from botocore.config import Config
from botocore.exceptions import ClientError

from ridgeline_service.connections import ConnectionLimits
from ridgeline_service.gateway.__main__ import server_config
from ridgeline_service.gateway.build import make_app
from ridgeline_service.gateway.routing import Limits
from ridgeline_service.objects.app import ObjectStoreApp
from ridgeline_service.objects.storage import ObjectStore
from ridgeline_service.paths import DataDir
from ridgeline_service.snapshot import (
    ApiKey,
    AsyncRoute,
    Credential,
    EndpointRoute,
    ReplicaRoute,
    Snapshot,
    SnapshotReader,
    VariantRoute,
    write_snapshot,
)

KEY = Credential("AKIDGATE", "gateway-secret")
BEARER = "rl-test-bearer"
TOKEN = "replica-token"

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Loop:
    """An event loop on a thread of its own, for servers that blocking clients talk to."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@dataclass
class Recorded:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Fake:
    """A scripted server: ``handler`` answers, ``seen`` is what came."""

    handler: Handler
    url: str = ""
    seen: list[Recorded] = field(default_factory=list)
    runner: web.AppRunner | None = None
    buffered: bool = True

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self.runner = web.AppRunner(app, handler_cancellation=True)
        await self.runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(self.runner, listening).start()
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"

    async def stop(self) -> None:
        assert self.runner is not None
        await self.runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(
            Recorded(
                request.method,
                request.raw_path,
                request.headers.copy(),
                await request.read() if self.buffered else b"",
            )
        )
        return await self.handler(request)


async def echo(request: web.Request) -> web.Response:
    return web.Response(
        body=b"echo:" + await request.read(),
        headers={
            "Content-Type": "application/x-echo",
            "X-Amzn-SageMaker-Custom-Attributes": "from-model",
        },
    )


async def accept_all(request: web.Request) -> web.Response:
    return web.json_response({"ModelArn": "arn:model"})


class World:
    """Everything around one gateway. ``publish`` changes its routes."""

    def __init__(self, root: Path, loop: Loop) -> None:
        self.loop = loop
        self.data_dir = DataDir(root)
        self.snapshot = Snapshot(
            version=1,
            credentials=(KEY,),
            api_keys=(ApiKey("key-1", hashlib.sha256(BEARER.encode()).hexdigest()),),
        )
        self.data_dir.run.mkdir(parents=True)
        self.data_dir.internal_key.write_text("internal\n")
        self.control = Fake(accept_all)
        self.replicas: list[Fake] = []
        self.url = ""
        self._servers: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []
        self.loop.run(self.control.start())
        store = ObjectStoreApp(
            ObjectStore(self.data_dir.objects, clock=lambda: datetime.now(UTC).timestamp()),
            SnapshotReader(self.data_dir.snapshot),
            own_credentials={},
            region="us-east-1",
            account_id="123456789012",
            now=lambda: datetime.now(UTC),
        )
        self.publish()
        self.store_url = self.serve(store)

    def start_gateway(
        self,
        limits: Limits | None = None,
        *,
        connections: ConnectionLimits | None = None,
        **seams: Any,
    ) -> None:
        app = make_app(
            self.data_dir,
            control_url=self.control.url,
            store_url=self.store_url,
            limits=limits or Limits(absent_wait_s=0.3),
            **seams,
        )
        self.url = self.serve(app, connections)

    def serve(self, app: Any, connections: ConnectionLimits | None = None) -> str:
        listening = socket.create_server(("127.0.0.1", 0))

        async def start() -> None:
            config = server_config(app, connections=connections)
            config.timeout_graceful_shutdown = 1
            server = uvicorn.Server(config)
            server.capture_signals = _no_signals  # type: ignore[method-assign]
            up = asyncio.Event()
            startup = server.startup

            async def started(sockets: list[socket.socket] | None = None) -> None:
                await startup(sockets)
                up.set()

            server.startup = started  # type: ignore[method-assign]
            task = asyncio.create_task(server.serve(sockets=[listening]))
            self._servers.append((server, task))
            await up.wait()

        self.loop.run(start())
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    def stop_last(self) -> None:
        """Stop the server that was started last."""

        async def stop() -> None:
            server, task = self._servers.pop()
            server.should_exit = True
            await task

        self.loop.run(stop())

    def close(self) -> None:
        while self._servers:
            self.stop_last()
        for fake in [self.control, *self.replicas]:
            self.loop.run(fake.stop())

    def replica(self, handler: Handler) -> Fake:
        fake = Fake(handler)
        self.loop.run(fake.start())
        self.replicas.append(fake)
        return fake

    def publish(self, *endpoints: EndpointRoute) -> None:
        self.snapshot = replace(
            self.snapshot,
            version=self.snapshot.version + 1,
            endpoints={endpoint.name: endpoint for endpoint in endpoints},
        )
        write_snapshot(self.data_dir.snapshot, self.snapshot)

    def client(self, service: str, **changes: Any) -> Any:
        options: dict[str, Any] = {
            "endpoint_url": self.url,
            "region_name": "us-east-1",
            "aws_access_key_id": KEY.access_key_id,
            "aws_secret_access_key": KEY.secret_access_key,
            "config": Config(retries={"max_attempts": 0}, proxies={}, read_timeout=20),
        }
        return boto3.client(service, **(options | changes))


def route(
    name: str,
    *fakes: Fake,
    task: str = "",
    status: str = "InService",
    asynchronous: AsyncRoute | None = None,
    variants: dict[str, float] | None = None,
) -> EndpointRoute:
    """An endpoint whose replicas are ``fakes``, one variant each if ``variants`` names them."""
    replicas = tuple(ReplicaRoute(f"r{i}", fake.url, TOKEN) for i, fake in enumerate(fakes))
    if variants is None:
        routed: tuple[VariantRoute, ...] = (VariantRoute("AllTraffic", 1.0, replicas),)
    else:
        routed = tuple(
            VariantRoute(variant, weight, (replicas[i],))
            for i, (variant, weight) in enumerate(variants.items())
        )
    arn = f"arn:aws:sagemaker:us-east-1:123456789012:endpoint/{name}"
    return EndpointRoute(name, arn, status, task, 1_700_000_000.0, routed, asynchronous)


def refused(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def document(body: bytes) -> Any:
    return json.loads(body)


class _no_signals:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    loop = Loop()
    made = World(tmp_path / "data", loop)
    try:
        yield made
    finally:
        made.close()
        loop.close()
