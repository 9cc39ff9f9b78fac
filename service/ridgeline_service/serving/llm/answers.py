"""What a route gives back: a whole answer, or one that is written as it is made."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from ridgeline_service.serving.llm.errors import ErrorStyle

JSON = "application/json"
JSON_LINES = "application/jsonlines"
EVENT_STREAM = "text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """``parts`` are sent as they come; ``frame`` wraps an error that comes too late for a status.

    ``close`` is called once, however the stream ends.
    """

    parts: AsyncIterator[bytes]
    content_type: str
    style: ErrorStyle
    frame: Callable[[object], bytes]
    close: Callable[[], None]


def json_answer(value: object) -> Answer:
    return Answer(to_json(value))


def to_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(value: object) -> bytes:
    """One server-sent event."""
    return b"data: " + to_json(value) + b"\n\n"


def json_line(value: object) -> bytes:
    return to_json(value) + b"\n"


DONE = b"data: [DONE]\n\n"
