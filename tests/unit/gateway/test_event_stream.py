"""The framing, read back by botocore's own parser."""

from __future__ import annotations

import json

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
    buffer = EventStreamBuffer()
    buffer.add_data(event_stream.payload_parts(chunk))
    events = list(buffer)
    assert b"".join(event.payload for event in events) == chunk
    assert all(0 < len(event.payload) <= event_stream.MAX_PAYLOAD for event in events)
    assert all(event.headers[":event-type"] == "PayloadPart" for event in events)


def test_exception() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(event_stream.exception("ModelStreamError", Message="died", ErrorCode="X"))
    (event,) = buffer
    assert event.headers[":message-type"] == "exception"
    assert event.headers[":exception-type"] == "ModelStreamError"
    assert json.loads(event.payload) == {"Message": "died", "ErrorCode": "X"}
