"""What was acknowledged is there after SIGKILL, and what was not leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ridgeline_service.objects.boto import make_client
from ridgeline_service.objects.client import AsyncObjectClient, parse_s3_uri
from ridgeline_service.objects.conditions import ALWAYS
from ridgeline_service.objects.storage import ObjectStore
from ridgeline_service.snapshot import Credential

KEY = Credential("AKIDROOT", "root-secret")


def spawn(root: Path, listening: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "ridgeline_service.objects"]
        + ["--data-dir", str(root), "--fd", str(listening.fileno())],
        pass_fds=[listening.fileno()],
    )


def test_acknowledged_puts_survive_sigkill(tmp_path: Path) -> None:
    (tmp_path / "root-key.json").write_text(
        json.dumps(
            {
                "access_key_id": KEY.access_key_id,
                "secret_access_key": KEY.secret_access_key,
                "api_key": "rl-x",
            }
        )
    )
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    s3 = make_client(f"http://127.0.0.1:{listening.getsockname()[1]}", KEY)
    process = spawn(tmp_path, listening)
    try:
        s3.create_bucket(Bucket="bucket")
        acknowledged: dict[str, int] = {}
        enough = threading.Event()
        stop = threading.Event()

        def write(writer: int) -> None:
            number = 0
            while not stop.is_set():
                # The same few keys over and over: a torn overwrite would show.
                key = f"w{writer}/{number % 3}"
                s3.put_object(Bucket="bucket", Key=key, Body=b"%08d" % number * 2000)
                acknowledged[key] = number
                number += 1
                if number == 12:
                    enough.set()

        writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
        for writer in writers:
            writer.start()
        assert enough.wait(30)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = spawn(tmp_path, listening)
        stop.set()
        for writer in writers:
            writer.join()
        for key, number in acknowledged.items():
            body = s3.get_object(Bucket="bucket", Key=key)["Body"].read()
            # A later write may have been done without an acknowledgement; half of one may not.
            assert body == body[:8] * 2000
            assert int(body[:8]) >= number
    finally:
        process.terminate()
        assert process.wait(15) == 0
        listening.close()


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def files(root: Path) -> int:
    return sum(1 for path in (root / "blobs").rglob("*") if path.is_file())


async def test_replaced_and_deleted_objects_give_their_space_back(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path, clock=lambda: 0.0)
    await store.create_bucket("bucket", again=True)
    for body in (b"one", b"two"):
        await store.put("bucket", "k", await store.write_blob(chunks(body)), {})
    await store.copy(store.head("bucket", "k"), "bucket", "copy", None)
    upload = await store.create_upload("bucket", "k", {})
    for body in (b"old", b"new"):
        await store.put_part(upload, 1, await store.write_blob(chunks(body)))
    assert files(tmp_path) == 3
    await store.abort(upload)
    await store.delete("bucket", [("k", ALWAYS)])
    copied = store.head("bucket", "copy")
    assert [c async for c in store.read(copied, 0, 3)] == [b"two"]
    await store.delete("bucket", [("copy", ALWAYS)])
    assert files(tmp_path) == 0
    store.close()


async def test_a_reader_keeps_what_is_replaced_meanwhile(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path, clock=lambda: 0.0)
    await store.create_bucket("bucket", again=True)
    await store.put("bucket", "k", await store.write_blob(chunks(b"old")), {})
    old = store.head("bucket", "k")
    with store.pinned(old):
        await store.put("bucket", "k", await store.write_blob(chunks(b"new")), {})
        assert b"".join([c async for c in store.read(old, 0, 3)]) == b"old"
        assert files(tmp_path) == 2
    assert files(tmp_path) == 1
    store.close()


async def test_a_start_sweeps_old_orphans_only(tmp_path: Path) -> None:
    now = 0.0
    store = ObjectStore(tmp_path, clock=lambda: now)
    await store.create_bucket("bucket", again=True)
    await store.put("bucket", "k", await store.write_blob(chunks(b"kept")), {})
    orphan = await store.write_blob(chunks(b"lost in a crash"))
    store.close()
    now = os.stat(tmp_path / "blobs" / orphan.blob_id[:2] / orphan.blob_id).st_mtime
    ObjectStore(tmp_path, clock=lambda: now + 60).close()
    assert files(tmp_path) == 2
    again = ObjectStore(tmp_path, clock=lambda: now + 7200)
    assert files(tmp_path) == 1
    assert [c async for c in again.read(again.head("bucket", "k"), 0, 4)] == [b"kept"]
    again.close()


async def test_a_body_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        raise ValueError("tampered")

    store = ObjectStore(tmp_path, clock=lambda: 0.0)
    with pytest.raises(ValueError, match="tampered"):
        await store.write_blob(broken())
    assert files(tmp_path) == 0
    store.close()


def test_the_asynchronous_client(store: Any, s3: Any, bucket: str) -> None:
    import aiohttp

    from ridgeline.errors import InvalidInput, NotFound, Unavailable
    from ridgeline_service.objects.client import StoreRefused

    from .conftest import KEY as STORE_KEY

    async def talk() -> None:
        async with aiohttp.ClientSession() as session:
            client = AsyncObjectClient(session, store.url, lambda: STORE_KEY)
            uri = f"s3://{bucket}/odd key+%é"
            await client.put(uri, b"body", {"Content-Type": "text/odd"})
            got = await client.get(uri, limit=4)
            assert (got.body, got.content_type) == (b"body", "text/odd")
            with pytest.raises(InvalidInput, match="4 bytes"):
                await client.get(uri, limit=3)
            with pytest.raises(NotFound, match="nothing"):
                await client.get(f"s3://{bucket}/nothing", limit=4)
            stranger = AsyncObjectClient(session, store.url, lambda: KEY)
            with pytest.raises(StoreRefused):
                await stranger.get(uri, limit=4)
            away = AsyncObjectClient(session, "http://127.0.0.1:9", lambda: KEY)
            with pytest.raises(Unavailable):
                await away.get(uri, limit=4)

    asyncio.run(talk())
    with pytest.raises(InvalidInput):
        parse_s3_uri("https://bucket/key")
