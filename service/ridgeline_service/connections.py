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
``timeout_keep_alive``.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

log = logging.getLogger(__name__)

# What HTTP/2 counts for a header beyond its characters (RFC 9113, 6.5.2): small ones cost too.
_HEADER_OVERHEAD = 32
# How much of the rest of a refused request is read and dropped, and for how long: closed at once,
# the connection would be reset, and the refusal lost with it.
_LINGER_BYTES = 1024 * 1024
_LINGER_S = 2.0


@dataclass(frozen=True)
class ConnectionLimits:
    """Seconds that clients may take, and bytes that the head of a request may have."""

    stall_s: float = 60.0
    head_s: float = 30.0
    body_s: float = 60.0
    head_bytes: int = 64 * 1024


class _Part(Enum):
    """Which part of a request the parser is in."""

    NONE = auto()
    HEAD = auto()
    BODY = auto()


class _HeadTooLarge(Exception):
    """Ends the parser, which calls it an invalid request."""


def limited(limits: ConnectionLimits | None = None) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with these limits, for ``uvicorn.Config(http=...)``."""
    chosen = limits or ConnectionLimits()

    class Connection(_LimitedConnection):
        limits = chosen

    return Connection


class _LimitedConnection(HttpToolsProtocol):
    limits: ConnectionLimits

    _stalled: asyncio.TimerHandle | None = None
    _overdue: asyncio.TimerHandle | None = None
    _owed = _Part.NONE
    _part = _Part.NONE
    _advanced = False
    _without_advance = 0
    _refused = False

    def connection_made(  # type: ignore[override]
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        self._wait_for(_Part.HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        self._at_ease()
        self._wait_for(_Part.NONE, again=True)
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
        if self._part is not _Part.NONE and not self.transport.is_closing():
            self._note_what_is_owed()

    def send_400_response(self, msg: str) -> None:
        if self._part is _Part.HEAD and self._head_size() > self.limits.head_bytes:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.stall_s, self._give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._at_ease()

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
        fields = sum(len(name) + len(value) + _HEADER_OVERHEAD for name, value in self.headers)
        return len(self.url) + fields

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _note_what_is_owed(self) -> None:
        """Wait for what the client has yet to send, once it is its turn."""
        if self.pipeline:
            self._wait_for(_Part.NONE)
        elif self._part is _Part.BODY and not self.cycle.response_started:
            self._wait_for(_Part.BODY, again=True)
        elif self._answering():
            self._wait_for(_Part.NONE)
        else:
            # The rest of a body that was answered before its end gets no time for each piece.
            self._wait_for(_Part.BODY if self._part is _Part.BODY else _Part.HEAD)

    def _wait_for(self, part: _Part, *, again: bool = False) -> None:
        if part is self._owed and not again:
            return
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        self._owed = part
        if part is not _Part.NONE:
            seconds = self.limits.head_s if part is _Part.HEAD else self.limits.body_s
            self._overdue = self.loop.call_later(seconds, self._call_time)

    def _call_time(self) -> None:
        answering = self._answering()
        if answering and self._application_takes_its_time():
            self._wait_for(_Part.BODY, again=True)
            return
        if self._part is _Part.HEAD or (self._part is _Part.BODY and answering):
            self._say(HTTPStatus.REQUEST_TIMEOUT)
        self.transport.close()

    def _application_takes_its_time(self) -> bool:
        """Whether it is not the client that the body waits for."""
        cycle = self.cycle
        asked = not cycle.waiting_for_100_continue and not self.flow.read_paused
        return cycle.response_started or not asked

    def _refuse_head(self) -> None:
        self._refused = True
        self._wait_for(_Part.NONE)
        if self._part is not _Part.HEAD or self._answering():
            self.transport.close()
            return
        self._say(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        self.transport.write_eof()
        self._without_advance = 0
        self._overdue = self.loop.call_later(_LINGER_S, self.transport.abort)

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
