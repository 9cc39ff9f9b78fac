"""What a route gives back: a whole answer, or one that is written as it is made."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite

from ridgeline_service.serving.llm.errors import ErrorStyle

JSON = "application/json"
JSON_LINES = "application/jsonlines"
_IMPOSSIBLE = -9999.0

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
    """As JSON, which has no word for what is not a finite number: null stands for it."""
    try:
        return _written(value)
    except ValueError:
        return _written(_finite(value))


def _written(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def written_logprob(value: float) -> float:
    """A log-probability as a client reads it: JSON has no minus infinity, which a token has that
    the model rules out. vLLM's number for it."""
    return max(value, _IMPOSSIBLE)


def event(value: object) -> bytes:
    """One server-sent event."""
    return b"data: " + to_json(value) + b"\n\n"


def json_line(value: object) -> bytes:
    return to_json(value) + b"\n"


DONE = b"data: [DONE]\n\n"
