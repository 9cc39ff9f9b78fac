"""A client that stops reading holds nobody up, holds little memory, and not for long."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.request
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from ridgeline_service.connections import ConnectionLimits
from ridgeline_service.gateway.routing import Limits

from .conftest import BEARER, World, route

CONNECTIONS = ConnectionLimits(stall_s=0.5)
PIECE = b"data: " + b"x" * 8184 + b"\n\n"
ENDLESS = {"model": "smol", "stream": True, "messages": []}


@dataclass
class Endless:
    """A replica that streams without end. ``sent`` bytes left it until ``ended``."""

    sent: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if not json.loads(await request.read()).get("stream"):
            return web.json_response({"id": "c"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(PIECE)
                self.sent += len(PIECE)
        except (ConnectionError, asyncio.CancelledError):
            self.ended.set()
            raise


@pytest.fixture
def replica(world: World) -> Endless:
    made = Endless()
    world.publish(route("smol", world.replica(made), task="text-generation"))
    # One slot: who holds it holds everybody up.
    limits = Limits(per_replica=1, busy_wait_s=20)
    world.start_gateway(limits, connections=CONNECTIONS)
    return made


def begin(world: World) -> socket.socket:
    """A request whose answer fills every buffer on its way."""
    host, port = world.url.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    body = json.dumps(ENDLESS).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {BEARER}\r\n"
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


def ask(world: World) -> int:
    """A request that is answered whole."""
    body = json.dumps({"model": "smol", "messages": []}).encode()
    headers = {"Authorization": f"Bearer {BEARER}"}
    url = f"{world.url}/v1/chat/completions"
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20) as answer:
        return int(answer.status)


def test_a_stalled_reader_is_left_and_its_slot_free_again(world: World, replica: Endless) -> None:
    with begin(world) as client:
        assert client.recv(16).startswith(b"HTTP/1.1 200")
        # It waits for the slot that the stalled reader has, and gets it.
        assert ask(world) == 200
        assert replica.ended.wait(10), "the replica went on for nobody"
        # The kernel's buffers of two hops, and 64 KiB here for each.
        assert replica.sent < 32 * 2**20
        client.settimeout(10)
        tail = b""
        while piece := client.recv(2**20):
            tail = (tail + piece)[-16:]
        assert not tail.endswith(b"0\r\n\r\n"), "a part must not look like the whole"


def test_a_reader_that_goes_on_is_not(world: World, replica: Endless) -> None:
    with begin(world) as client:
        client.settimeout(10)
        taken = 0
        while taken < 64 * 2**20:
            taken += len(client.recv(2**20))
        assert not replica.ended.is_set()
    assert replica.ended.wait(10), "a client that leaves ends its stream"
    assert ask(world) == 200
