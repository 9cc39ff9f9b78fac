"""What the load generator makes of recorded answers, and of the times in them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import itertools

from figures import RequestTimes, RunFailed, figures
from load import read_answer

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def text(words: str) -> bytes:
    return event(choices=[{"text": words}])


EVENTS = [text("a"), text("b"), text(""), event(choices=[], usage={"completion_tokens": 3})]
EVENTS.append(b"data: [DONE]\n\n")


def chunked(payloads: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in payloads) + b"0\r\n\r\n"


@given(cuts=st.sets(st.integers(1, len(HEAD + chunked(EVENTS)) - 1)))
def test_an_event_came_when_its_last_byte_did(cuts: set[int]) -> None:
    raw = HEAD + chunked(EVENTS)
    edges = [0, *sorted(cuts), len(raw)]
    pieces = [(float(end), raw[start:end]) for start, end in itertools.pairwise(edges)]
    got = read_answer(0.0, pieces)
    ends = [raw.index(words) + len(words) for words in EVENTS[:2]]
    expected = tuple(float(min(edge for edge in edges if edge >= end)) for end in ends)
    assert (got.arrivals, got.tokens, got.error) == (expected, 3, "")


def test_events_may_be_split_over_chunks() -> None:
    stream = b"".join(EVENTS)
    raw = HEAD + chunked([stream[:7], stream[7:31], stream[31:]])
    got = read_answer(0.0, [(1.0, raw)])
    assert (got.arrivals, got.tokens) == ((1.0, 1.0), 3)


def test_a_body_that_ends_with_the_connection_is_read_as_it_came() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    got = read_answer(0.0, [(1.0, head + EVENTS[0]), (2.0, EVENTS[1]), (3.0, EVENTS[3])])
    assert (got.arrivals, got.tokens) == ((1.0, 2.0), 3)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\nfull", "429"),
        (b"", "no answer"),
        (HEAD + chunked([event(error={"message": "stuck"})]), "stuck"),
    ],
)
def test_what_is_no_answer_is_an_error(raw: bytes, words: str) -> None:
    assert words in read_answer(0.0, [(1.0, raw)] if raw else []).error


def test_figures_are_of_the_whole_run() -> None:
    requests = [RequestTimes(0.0, (1.0, 2.0, 3.0), 3), RequestTimes(1.0, (3.0, 3.5, 7.0), 3)]
    result = figures(requests, 8.0, 3)
    assert (result.tokens, result.tokens_per_s) == (6, 0.8)
    assert (result.first_token_p50, result.first_token_p95) == (1500.0, 2000.0)
    assert (result.per_token_p50, result.gap_p99) == (1500.0, 3500.0)


@pytest.mark.parametrize(
    "request_times", [RequestTimes(0.0, (1.0,), 2), RequestTimes(0.0, (), 0, "503 Busy")]
)
def test_a_run_with_a_short_or_refused_answer_has_no_figures(request_times: RequestTimes) -> None:
    with pytest.raises(RunFailed):
        figures([request_times], 1.0, 3)
