"""Who goes on, or waits for us, is not hurried: one connection by a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from ridgeline_service.connections import ConnectionLimits, limited

LIMITS = ConnectionLimits(head_s=30, body_s=60)
KEEP_ALIVE_S = 75
# Who seems to be late is looked at once more.
A_MOMENT_S = 0.5


@dataclass(eq=False)
class Timer:
    at: float
    callback: Callable[[], object]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True

    def when(self) -> float:
        return self.at


@dataclass
class Clock:
    """What a connection uses of an event loop. Requests stay with the test."""

    now: float = 0.0
    timers: list[Timer] = field(default_factory=list)
    set_timers: int = 0

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return self.call_at(self.now + seconds, callback)

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        self.set_timers += 1
        self.timers.append(Timer(when, callback))
        return self.timers[-1]

    def create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        work.close()
        return asyncio.get_running_loop().create_future()

    def turn(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [t for t in self.timers if not t.cancelled and t.at <= until]:
            timer = min(due, key=lambda timer: timer.at)
            self.timers.remove(timer)
            self.now = max(self.now, timer.at)
            timer.callback()
        self.now = until

    def freeze(self, seconds: float) -> None:
        """The process is held up: what is due runs after that, before anything that was sent."""
        self.now += seconds
        self.turn(0)


@dataclass
class Transport:
    sent: bytes = b""
    closed: bool = False
    ended: bool = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        assert not self.ended
        self.sent += data

    def write_eof(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str) -> None:
        return None

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def never(scope: object, receive: object, send: object) -> None:
    """The application: the test answers in its place."""


class Client:
    def __init__(self) -> None:
        config = uvicorn.Config(never, timeout_keep_alive=KEEP_ALIVE_S, log_config=None, ws="none")
        self.clock = Clock()
        self.transport = Transport()
        loop: Any = self.clock
        transport: Any = self.transport
        self.connection = limited(LIMITS)(config, ServerState(), {}, loop)
        self.connection.connection_made(transport)

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    async def answer(self, *pieces: bytes, pause_s: float = 0) -> None:
        send = self.connection.cycle.send
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in pieces:
            self.clock.turn(pause_s)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture
async def client() -> Client:
    return Client()


async def test_a_slow_upload_goes_on(client: Client) -> None:
    client.send(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n")
    for _ in range(99):
        client.clock.turn(LIMITS.body_s - 1)
        client.send(b"x")
    assert not client.transport.closed
    client.clock.turn(LIMITS.body_s + A_MOMENT_S)
    assert client.transport.sent.startswith(b"HTTP/1.1 408")
    assert client.transport.closed


async def test_answers_may_take_their_time(client: Client) -> None:
    client.send(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")
    client.clock.turn(3600)
    await client.answer(b"one", b"two", pause_s=3600)
    assert client.transport.sent.startswith(b"HTTP/1.1 200")
    assert not client.transport.closed


async def test_between_requests_a_connection_is_kept_as_long_as_it_was(client: Client) -> None:
    for _ in range(2):
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        await client.answer()
        client.clock.turn(KEEP_ALIVE_S - 1)
        assert not client.transport.closed
    client.clock.turn(1)
    assert client.transport.closed
    assert client.transport.sent.count(b"HTTP/1.1") == 2, "an idle connection ends without a word"


async def test_who_was_told_to_wait_with_the_body_may(client: Client) -> None:
    client.send(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    client.clock.turn(3600)
    assert not client.transport.closed


async def test_a_body_that_nobody_reads_may_wait(client: Client) -> None:
    client.send(b"PUT / HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
    client.clock.turn(3600)
    assert not client.transport.closed


async def test_an_answer_that_began_before_the_body_ended_goes_on(client: Client) -> None:
    client.send(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx")
    await client.answer(b"one", b"two", pause_s=3600)
    assert b"408" not in client.transport.sent
    assert client.transport.sent.endswith(b"3\r\ntwo\r\n0\r\n\r\n")


async def test_the_next_request_may_wait_for_the_answer_of_the_one_before(client: Client) -> None:
    client.send(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HT")
    client.clock.turn(3600)
    await client.answer()
    client.clock.turn(LIMITS.head_s - 1)
    assert not client.transport.closed
    client.send(b"TP/1.1\r\n\r\n")
    client.clock.turn(3600)
    assert not client.transport.closed


async def test_pieces_of_a_body_set_no_timers(client: Client) -> None:
    client.send(b"POST / HTTP/1.1\r\nContent-Length: 10000\r\n\r\n")
    before = client.clock.set_timers
    for _ in range(1000):
        client.clock.turn(0.001)
        client.send(b"x")
    assert client.clock.set_timers == before


@pytest.mark.parametrize(
    ("begin", "rest"),
    [(b"GET / HT", b"TP/1.1\r\n\r\n"), (b"PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\nx", b"x")],
    ids=["head", "body"],
)
async def test_who_sent_while_we_were_held_up_is_not_late(
    client: Client, begin: bytes, rest: bytes
) -> None:
    client.send(begin)
    client.clock.freeze(LIMITS.body_s + 3)
    client.send(rest)
    client.clock.turn(3600)
    assert client.transport.sent == b""
    assert not client.transport.closed


async def test_a_reader_is_looked_at_again_after_we_were_held_up(client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    client.connection.pause_writing()
    client.clock.freeze(LIMITS.stall_s + 3)
    client.connection.resume_writing()
    client.clock.turn(3600)
    assert not client.transport.closed


@pytest.mark.parametrize("asks", [b"Expect: 100-continue\r\n", b""], ids=["100", "paused"])
async def test_who_had_to_wait_with_the_body_has_all_its_time_after_that(
    client: Client, asks: bytes
) -> None:
    client.send(b"PUT / HTTP/1.1\r\n" + asks + b"Content-Length: 200000\r\n\r\n")
    if not asks:
        client.send(b"x" * 100_000)
    client.clock.turn(10 * LIMITS.body_s - 0.1)
    asked = asyncio.create_task(client.connection.cycle.receive())
    await asyncio.sleep(0)
    client.clock.turn(LIMITS.body_s - 1)
    assert not client.transport.closed
    client.send(b"x")
    await asked
    client.clock.turn(LIMITS.body_s + A_MOMENT_S)
    assert b"HTTP/1.1 408" in client.transport.sent


async def refuse_early(client: Client) -> None:
    client.send(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nx")
    await client.answer()


async def test_after_a_refusal_the_rest_of_the_body_may_come(client: Client) -> None:
    await refuse_early(client)
    for _ in range(9):
        client.clock.turn(LIMITS.body_s - 1)
        client.send(b"x")
    assert not client.transport.closed
    client.clock.turn(LIMITS.body_s + A_MOMENT_S)
    assert client.transport.closed
    assert client.transport.sent.count(b"HTTP/1.1") == 1


async def test_after_a_refusal_the_rest_of_the_body_does_not_come_for_ever(client: Client) -> None:
    await refuse_early(client)
    pause = A_MOMENT_S / 2
    while client.clock.now < LIMITS.rest_s:
        client.send(b"x")
        client.clock.turn(pause)
    assert not client.transport.closed
    client.send(b"x")
    client.clock.turn(pause)
    client.send(b"x")
    client.clock.turn(pause)
    assert client.transport.closed
    assert b"408" not in client.transport.sent


async def test_the_request_after_a_refused_upload_has_its_own_time(client: Client) -> None:
    client.send(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nx")
    await client.answer()
    client.send(b"x")
    client.clock.turn(LIMITS.head_s - 1)
    client.send(b"PUT / HTTP/1.1\r\nContent-Length: 9000\r\n\r\n")
    for _ in range(100):
        client.clock.turn(LIMITS.body_s - 1)
        client.send(b"x")
    assert not client.transport.closed


async def test_a_head_that_is_too_large_leaves_the_answer_before_it(client: Client) -> None:
    large = b"GET /2 HTTP/1.1\r\nX: " + b"a" * (LIMITS.head_bytes + 1) + b"\r\n\r\n"
    client.send(b"GET /1 HTTP/1.1\r\n\r\n" + large)
    assert not client.transport.closed
    await client.answer(b"one", pause_s=3600)
    answer, _, refusal = client.transport.sent.partition(b"3\r\none\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert refusal.startswith(b"HTTP/1.1 431")
    assert client.transport.ended
    client.clock.turn(3)
    assert client.transport.closed


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
async def test_who_sends_too_much_of_a_head_is_told_once(client: Client, end: bytes) -> None:
    client.send(b"GET / HTTP/1.1\r\nX: ")
    client.send(b"a" * (LIMITS.head_bytes + 1) + end)
    client.send(b"a" * 1000)
    client.clock.turn(3600)
    assert client.transport.sent.startswith(b"HTTP/1.1 431")
    assert client.transport.sent.count(b"HTTP/1.1") == 1
    assert client.transport.closed
