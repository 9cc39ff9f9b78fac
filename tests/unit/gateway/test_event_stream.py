"""The framing, read back by botocore's own parser."""

from __future__ import annotations

import json
import time

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_service.gateway import event_stream

_names = st.text(min_size=1, max_size=50)
_values = st.text(max_size=200)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.dictionaries(_names, _values, max_size=4), st.binary(max_size=300))),
    st.integers(1, 50),
)
def test_any_messages_cut_anywhere_are_read_back(
    messages: list[tuple[dict[str, str], bytes]], cut: int
) -> None:
    wire = b"".join(event_stream.message(headers, payload) for headers, payload in messages)
    buffer = EventStreamBuffer()
    read = []
    for start in range(0, len(wire), cut):
        buffer.add_data(wire[start : start + cut])
        read += [(event.headers, event.payload) for event in buffer]
    assert read == messages


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(-1, 1))
def test_large_chunks_are_split_and_lose_nothing(times: int, more: int) -> None:
    chunk = b"x" * max(0, times * event_stream.MAX_PAYLOAD + more)
    for kind in ("application/octet-stream", "text/event-stream", "application/jsonlines"):
        parts = sent(kind, [chunk])
        assert b"".join(parts) == chunk
        assert all(0 < len(part) <= event_stream.MAX_PAYLOAD for part in parts)


@pytest.mark.parametrize(
    ("kind", "documents"),
    [
        ("text/event-stream", [b'data: {"a": 1}\n\n', b": wait\n\n", b"data: [DONE]\n\n"]),
        ("text/event-stream; charset=utf-8", [b"id: 1\r\ndata: x\r\n\r\n", b"data: y\r\n\r\n"]),
        ("application/jsonlines", [b'{"a": 1}\n', b'{"b": "\\n"}\n', b'{"c": 2}']),
        ("application/x-ndjson", [b'{"a": 1}\n', b"{}\n"]),
    ],
)
def test_documents_come_one_a_part_however_they_were_cut(kind: str, documents: list[bytes]) -> None:
    """litellm, as others, parses a part as one document."""
    stream = b"".join(documents)
    for size in range(1, len(stream) + 1):
        pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
        assert sent(kind, pieces) == documents


def test_a_document_does_not_wait_for_the_next_one() -> None:
    parts = event_stream.PayloadParts("text/event-stream")
    assert payloads(parts.take(b"data: 1\n\ndata: 2")) == [b"data: 1\n\n"]
    assert payloads(parts.take(b"\n\n")) == [b"data: 2\n\n"]


def test_an_endless_event_is_not_held() -> None:
    parts = event_stream.PayloadParts("text/event-stream")
    piece = b"x" * (event_stream.MAX_PAYLOAD // 4)
    passed = b"".join(parts.take(piece) for _ in range(9))
    assert payloads(passed) == [piece * 4, piece * 4]
    assert payloads(parts.rest()) == [piece]


def test_what_is_held_is_not_copied_for_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "MAX_PAYLOAD", 64 * 1024 * 1024)
    parts = event_stream.PayloadParts("application/jsonlines")
    long = b"x" * 32 * 1024 * 1024
    assert not parts.take(long)
    begun = time.thread_time()
    for _ in range(4000):
        assert not parts.take(b"0123456789")
    # Milliseconds; to copy 32 MiB four thousand times takes many seconds.
    assert time.thread_time() - begun < 1
    assert parts.take(b"\n").count(long + b"0123456789" * 4000 + b"\n") == 1


def test_other_types_go_on_as_they_come() -> None:
    pieces = [b"one\n\ntwo", b"\n", b"{}\n{}\n"]
    assert sent("text/plain", pieces) == pieces


def sent(kind: str, pieces: list[bytes]) -> list[bytes]:
    """The payloads of a stream that comes in ``pieces``."""
    parts = event_stream.PayloadParts(kind)
    return payloads(b"".join([*map(parts.take, pieces), parts.rest()]))


def payloads(wire: bytes) -> list[bytes]:
    buffer = EventStreamBuffer()
    buffer.add_data(wire)
    events = list(buffer)
    assert all(event.headers[":event-type"] == "PayloadPart" for event in events)
    return [event.payload for event in events]


def test_exception() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(event_stream.exception("ModelStreamError", Message="died", ErrorCode="X"))
    (event,) = buffer
    assert event.headers[":message-type"] == "exception"
    assert event.headers[":exception-type"] == "ModelStreamError"
    assert json.loads(event.payload) == {"Message": "died", "ErrorCode": "X"}
