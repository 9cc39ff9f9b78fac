"""HTTP connections whose clients keep to limits: who stalls is left, and a head has a size.

A reader that takes nothing is not waited for without end: what is written for it holds memory here,
a slot on a replica and a sequence's place behind it. uvicorn pauses the application when more than
64 KiB wait to be sent; a pause of ``stall_s`` ends the connection, at once and without a farewell,
and the application learns of it as of any client that left. So a reader must take about 64 KiB in
``stall_s`` while that much waits for it, and one that keeps up is never asked for anything.

A sender is waited for as little: a head has ``head_s`` seconds from its first byte (the first one
from the connection's begin), a body is over when nothing of it came for ``body_s``. A head has up
to ``head_bytes``, since the parser joins the pieces of a long line again with every one that comes.
None of this runs while a request is being answered; idle time between two requests is uvicorn's
``timeout_keep_alive``. Many clients read only when they have sent all, so what is left of a body
that was answered early is read and dropped while it comes, for up to ``rest_s``.

One timer stands for a sender and looks at when it last sent: to set one for each piece would cost a
tenth of a large body's time.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

log = logging.getLogger(__name__)

# What HTTP/2 counts for a header beyond its characters (RFC 9113, 6.5.2): small ones cost too.
_HEADER_OVERHEAD = 32
# How much of the rest of a refused request is read and dropped, and for how long: closed at once,
# the connection would be reset, and the refusal lost with it.
_LINGER_BYTES = 1024 * 1024
_LINGER_S = 2.0
# Timers run before reads: in a process that was itself held up, what clients sent meanwhile is
# found only now. So who seems to be late has one more look.
_LAST_LOOK_S = 0.5


@dataclass(frozen=True)
class ConnectionLimits:
    """Seconds that clients may take, and bytes that the head of a request may have."""

    stall_s: float = 60.0
    head_s: float = 30.0
    body_s: float = 60.0
    rest_s: float = 3600.0
    head_bytes: int = 64 * 1024


class _Part(Enum):
    """Which part of a request the parser is in."""

    NONE = auto()
    HEAD = auto()
    BODY = auto()


class _HeadTooLarge(Exception):
    """Ends the parser, which calls it an invalid request."""


class _Flow(FlowControl):
    """Knows when the application last asked for more of a body, be it by 100 Continue."""

    def __init__(self, transport: asyncio.Transport, clock: Callable[[], float]) -> None:
        super().__init__(transport)
        self._clock = clock
        self.asked_at = 0.0

    def resume_reading(self) -> None:
        super().resume_reading()
        self.asked_at = self._clock()


def limited(limits: ConnectionLimits | None = None) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with these limits, for ``uvicorn.Config(http=...)``."""
    chosen = limits or ConnectionLimits()

    class Connection(_LimitedConnection):
        limits = chosen

    return Connection


class _LimitedConnection(HttpToolsProtocol):
    limits: ConnectionLimits

    _flow: _Flow
    _stalled: asyncio.TimerHandle | None = None
    _watch: asyncio.TimerHandle | None = None
    _owed = _Part.NONE
    _since = 0.0
    _rest_ends = math.inf
    _looked_twice_for = -1.0
    _part = _Part.NONE
    _advanced = False
    _without_advance = 0
    _refused = False

    def connection_made(  # type: ignore[override]
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        self.flow = self._flow = _Flow(transport, self.loop.time)
        self._wait_for(_Part.HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        self._at_ease()
        self._wait_for(_Part.NONE)
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._drop(data)
            return
        self._advanced = False
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        # Also trailers are joined by the parser, and line ends before a request are for nothing.
        self._without_advance = 0 if self._advanced else self._without_advance + len(data)
        if self._without_advance > self.limits.head_bytes:
            self._refuse_head()
        else:
            self._note_what_is_owed()

    def on_message_begin(self) -> None:
        self._enter(_Part.HEAD)
        self._rest_ends = math.inf
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._head_size() > self.limits.head_bytes:
            raise _HeadTooLarge
        self._enter(_Part.BODY)
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":
            _end_by_closing(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._advanced = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._enter(_Part.NONE)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._refused:
            self._end_refused()
        elif self._part is not _Part.NONE:
            if not self._answering():
                self._rest_ends = self.loop.time() + self.limits.rest_s
            self._note_what_is_owed()

    def send_400_response(self, msg: str) -> None:
        if self._part is _Part.HEAD and self._head_size() > self.limits.head_bytes:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.stall_s, self._look_at_the_reader_again)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._at_ease()

    def _look_at_the_reader_again(self) -> None:
        self._stalled = self.loop.call_later(_LAST_LOOK_S, self._give_up)

    def _give_up(self) -> None:
        log.warning("A reader took nothing for %g s: its connection is closed", self.limits.stall_s)
        # Not close(), which waits until all is sent.
        self.transport.abort()

    def _at_ease(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _enter(self, part: _Part) -> None:
        self._part = part
        self._advanced = True

    def _head_size(self) -> int:
        size = len(self.url) + len(self.headers) * _HEADER_OVERHEAD
        for name, value in self.headers:
            size += len(name) + len(value)
        return size

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _note_what_is_owed(self) -> None:
        """Wait for what the client has yet to send, once it is its turn."""
        if self.pipeline:
            self._wait_for(_Part.NONE)
        elif self._part is _Part.BODY and not self._answer_is_under_way():
            self._wait_for(_Part.BODY)
            self._count_from_now()
        elif self._answering():
            self._wait_for(_Part.NONE)
        else:
            self._wait_for(_Part.HEAD)

    def _answer_is_under_way(self) -> bool:
        return self.cycle.response_started and not self.cycle.response_complete

    def _wait_for(self, part: _Part) -> None:
        if part is self._owed:
            return
        self._owed = part
        if part is not _Part.NONE:
            self._count_from_now()
            self._look_at(self._deadline())

    def _count_from_now(self) -> None:
        self._since = self.loop.time()

    def _deadline(self) -> float:
        if self._owed is _Part.HEAD:
            return self._since + self.limits.head_s
        since = max(self._since, self._flow.asked_at)
        return min(since + self.limits.body_s, self._rest_ends)

    def _look_at(self, when: float) -> None:
        """Look then at the latest. What is owed no more is found out by that look."""
        if self._watch is not None:
            if self._watch.when() <= when:
                return
            self._watch.cancel()
        self._watch = self.loop.call_at(when, self._look)

    def _look(self) -> None:
        self._watch = None
        if self._owed is _Part.NONE:
            return
        if self._application_takes_its_time():
            self._count_from_now()
        now, deadline = self.loop.time(), self._deadline()
        if now < deadline:
            self._look_at(deadline)
        elif deadline != self._looked_twice_for:
            self._looked_twice_for = deadline
            self._look_at(now + _LAST_LOOK_S)
        else:
            self._call_time()

    def _application_takes_its_time(self) -> bool:
        """Whether it is not the client that the body waits for."""
        if not self._answering():
            return False
        cycle = self.cycle
        return cycle.response_started or cycle.waiting_for_100_continue or self.flow.read_paused

    def _call_time(self) -> None:
        if self._part is _Part.HEAD or (self._part is _Part.BODY and self._answering()):
            self._say(HTTPStatus.REQUEST_TIMEOUT)
        self.transport.close()

    def _refuse_head(self) -> None:
        self._refused = True
        self._without_advance = 0
        self._wait_for(_Part.NONE)
        if self._part is _Part.BODY and self._answering():
            self.transport.close()
        else:
            self._end_refused()

    def _end_refused(self) -> None:
        """End the connection, once the requests before are answered."""
        if self._answering():
            return
        if self._part is _Part.HEAD:
            self._say(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        self.transport.write_eof()
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self.loop.call_later(_LINGER_S, self.transport.abort)

    def _drop(self, data: bytes) -> None:
        self._without_advance += len(data)
        if self._without_advance > _LINGER_BYTES:
            self.transport.abort()

    def _say(self, status: HTTPStatus) -> None:
        body = f"{status.phrase}\n".encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: text/plain\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)


def _end_by_closing(cycle: RequestResponseCycle) -> None:
    """HTTP/1.0 knows no chunks: an answer without a length ends with its connection."""
    send = cycle.send
    unframed = False

    async def send_unframed(message: Any) -> None:
        nonlocal unframed
        if message["type"] == "http.response.start":
            unframed = all(name.lower() != b"content-length" for name, _ in message["headers"])
            if unframed:
                cycle.chunked_encoding = False
        elif unframed:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    cycle.send = send_unframed  # type: ignore[method-assign]
