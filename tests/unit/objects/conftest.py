"""A real object store on a free port, in this process, and real clients for it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from ridgeline_service.objects.app import ObjectStoreApp
from ridgeline_service.objects.boto import make_client
from ridgeline_service.objects.forward import Forwarder
from ridgeline_service.objects.storage import ObjectStore
from ridgeline_service.snapshot import Credential, Snapshot, SnapshotReader, write_snapshot

KEY = Credential("AKIDSTORE", "store-secret")


@dataclass(frozen=True)
class RunningStore:
    url: str
    port: int
    root: Path


@contextmanager
def running_store(
    root: Path, key: Credential, forwarder: Forwarder | None = None
) -> Iterator[RunningStore]:
    write_snapshot(root / "snapshot.json", Snapshot(version=1, credentials=(key,)))
    app = ObjectStoreApp(
        ObjectStore(root / "objects", clock=lambda: datetime.now(UTC).timestamp()),
        SnapshotReader(root / "snapshot.json"),
        own_credentials={},
        region="us-east-1",
        account_id="123456789012",
        now=lambda: datetime.now(UTC),
        forwarder=forwarder,
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", lifespan="on")
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    port = listening.getsockname()[1]
    yield RunningStore(f"http://127.0.0.1:{port}", port, root / "objects")
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    with running_store(tmp_path_factory.mktemp("store"), KEY) as running:
        yield running


@pytest.fixture(scope="module")
def s3(store: RunningStore) -> Any:
    return make_client(store.url, KEY)


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    name = f"b-{abs(hash(request.node.nodeid)):x}"[:40]
    s3.create_bucket(Bucket=name)
    return name
