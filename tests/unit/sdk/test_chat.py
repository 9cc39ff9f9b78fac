"""Text in the answers of LLM images, whole and streamed, however the stream is cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline._chat import chat_body, streamed_text, whole_text
from ridgeline.errors import InvalidInput, InvocationFailed, Overloaded


def openai_chunk(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def lmi_chunk(text: str) -> dict[str, Any]:
    return {"token": {"id": 1, "text": text}}


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)]


@settings(deadline=None)
@given(st.lists(st.text(min_size=1)), st.lists(st.integers(0, 10_000)), st.booleans())
def test_server_sent_events_cut_anywhere(
    pieces: list[str], places: list[int], keepalives: bool
) -> None:
    role = {"choices": [{"delta": {"role": "assistant"}}]}
    usage = {"choices": [], "usage": {"total_tokens": 3}}
    events = [role, *map(openai_chunk, pieces), usage]
    lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    if keepalives:
        lines.insert(1, ": still here\n\n")
    stream = "".join([*lines, "data: [DONE]\n\n"]).encode()
    assert list(streamed_text(cut(stream, places))) == pieces


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1), st.lists(st.integers(0, 10_000)))
def test_json_lines_cut_anywhere(pieces: list[str], places: list[int]) -> None:
    """The last line of LMI's stream repeats the whole text, with its token."""
    events = [lmi_chunk(piece) for piece in pieces]
    events[-1]["generated_text"] = "".join(pieces)
    stream = "\n".join(json.dumps(event) for event in events).encode()
    assert list(streamed_text(cut(stream, places))) == pieces


def test_an_error_within_a_stream_keeps_what_came_before() -> None:
    stream = (
        b'data: {"choices": [{"delta": {"content": "Par"}}]}\n\n'
        b'data: {"error": {"message": "replica died", "code": "ModelStreamError"}}\n\n'
    )
    pieces = streamed_text([stream])
    assert next(pieces) == "Par"
    with pytest.raises(InvocationFailed, match="replica died"):
        next(pieces)


def test_an_error_within_a_stream_has_its_own_class() -> None:
    stream = b'{"error": {"message": "full", "code": "Overloaded"}}\n'
    with pytest.raises(Overloaded):
        list(streamed_text([stream]))


def test_a_stream_without_text_says_so() -> None:
    with pytest.raises(InvocationFailed, match="no text"):
        list(streamed_text([b'{"embedding": [1, 2]}']))
    assert list(streamed_text([])) == []


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"choices": [{"message": {"role": "assistant", "content": "Paris"}}]}, "Paris"),
        ({"choices": [{"text": "Paris"}]}, "Paris"),
        ({"generated_text": "Paris"}, "Paris"),
        ([{"generated_text": "Paris"}], "Paris"),
        ({"choices": [{"message": {"content": None}}]}, ""),
    ],
)
def test_whole_answers(body: Any, wanted: str) -> None:
    assert whole_text(json.dumps(body).encode()) == wanted


@pytest.mark.parametrize("body", [b"[0.1, 0.2]", b"plain", b"{}", b'{"choices": [{}]}'])
def test_an_answer_without_text(body: bytes) -> None:
    with pytest.raises(InvocationFailed, match="no text"):
        whole_text(body)


def test_the_body_holds_what_was_given_and_no_more() -> None:
    body = json.loads(
        chat_body("Hi", system="Be brief.", stream=True, options={"seed": 1, "top_p": None})
    )
    assert body == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ],
        "stream": True,
        "seed": 1,
    }


def test_a_message_without_a_role_is_refused() -> None:
    with pytest.raises(InvalidInput, match="role"):
        chat_body([{"content": "Hi"}], system=None, stream=False, options={})
