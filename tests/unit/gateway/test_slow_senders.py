"""A client that sends too much of a head, or nothing more, is answered and left, key or no key."""

from __future__ import annotations

import json
import socket

import pytest
from aiohttp import web

from ridgeline_service.connections import ConnectionLimits

from .conftest import BEARER, World, route

IMPATIENT = ConnectionLimits(head_s=0.3, body_s=0.3)
KEY = f"Authorization: Bearer {BEARER}\r\n"
CHAT = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{KEY}".encode()


def connect(world: World) -> socket.socket:
    host, port = world.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def all_of(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as answer:
        return answer.read()


def healthy(connection: socket.socket) -> bool:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    said = b""
    while b'{"status":"ok"}' not in said:
        piece = connection.recv(4096)
        if not piece:
            return False
        said += piece
    return said.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "fields",
    [
        b"X: " + b"a" * 200_000 + b"\r\n",
        b"".join(b"X-%d: b\r\n" % number for number in range(5000)),
    ],
    ids=["one large header", "many small ones"],
)
def test_a_head_that_is_too_large_is_refused(world: World, fields: bytes) -> None:
    world.start_gateway()
    with connect(world) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")
        assert all_of(connection).startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")


def test_a_head_as_large_as_clients_send_is_not(world: World) -> None:
    world.start_gateway()
    with connect(world) as connection:
        fields = b"X: " + b"a" * 60_000 + b"\r\n"
        connection.sendall(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + fields + b"\r\n")
        assert all_of(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /healthz HTTP/1.1\r\nX: ",
        b"GET /",
        b"POST /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ],
    ids=["header", "path", "trailer"],
)
def test_a_head_without_end_is_left_while_it_comes(world: World, begin: bytes) -> None:
    world.start_gateway()
    with connect(world) as connection, connect(world) as other:
        connection.sendall(begin)
        endless = b"a" * 2**28
        with pytest.raises(ConnectionError):
            connection.sendall(endless)
        assert healthy(other)


@pytest.mark.parametrize(
    "sent",
    [b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", CHAT + b"Content-Length: 9\r\n\r\n{"],
    ids=["half a request line", "half a head", "half a body"],
)
def test_half_a_request_is_answered_and_left(world: World, sent: bytes) -> None:
    world.start_gateway(connections=IMPATIENT)
    with connect(world) as connection:
        connection.sendall(sent)
        assert all_of(connection).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_a_connection_for_nothing_ends(world: World, sent: bytes) -> None:
    world.start_gateway(connections=IMPATIENT)
    with connect(world) as connection:
        connection.sendall(sent)
        assert all_of(connection) == b""


def test_a_head_that_comes_byte_by_byte_has_no_more_time(world: World) -> None:
    world.start_gateway(connections=IMPATIENT)
    with connect(world) as connection:
        connection.sendall(b"GET /")
        connection.settimeout(0.02)
        said = b""
        while not said:
            connection.sendall(b"a")
            try:
                said = connection.recv(64)
            except TimeoutError:
                continue
        assert said.startswith(b"HTTP/1.1 408")


def test_the_rest_of_a_body_that_was_refused_is_not_waited_for(world: World) -> None:
    world.start_gateway(connections=IMPATIENT)
    with connect(world) as connection:
        connection.sendall(b"POST /api/keys HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        said = all_of(connection)
        assert said.startswith(b"HTTP/1.1 401")
        assert said.count(b"HTTP/1.1") == 1, "nothing was asked a second time"


def test_a_stream_to_http_1_0_ends_with_its_connection(world: World) -> None:
    """HTTP/1.0 knows no chunks: its clients would take their sizes for a part of the answer."""

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await response.write(b"data: 2\n\n")
        return response

    world.publish(route("smol", world.replica(stream), task="text-generation"))
    world.start_gateway()
    body = json.dumps({"model": "smol", "stream": True, "messages": []}).encode()
    with connect(world) as connection:
        old = CHAT.replace(b"HTTP/1.1", b"HTTP/1.0")
        connection.sendall(old + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        head, _, streamed = all_of(connection).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert streamed == b"data: 1\n\ndata: 2\n\n"


def test_health_is_asked_for_and_nothing_else(world: World) -> None:
    world.start_gateway()
    with connect(world) as connection:
        connection.sendall(b"DELETE /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = all_of(connection)
    assert said.startswith(b"HTTP/1.1 405")
    assert b"\r\nallow: GET, HEAD\r\n" in said
