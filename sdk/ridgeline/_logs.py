"""The lines that an endpoint's replicas wrote, from CloudWatch Logs' API.

One log group an endpoint, one stream a replica; here they become one sequence in order of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ridgeline.errors import NotFound

if TYPE_CHECKING:
    from ridgeline.session import Session

_POLL_S = 1.0
# New replicas write to new streams; looking for those at every poll would double the calls.
_POLLS_BETWEEN_STREAM_LISTS = 5


@dataclass(frozen=True, order=True)
class LogLine:
    """One line: milliseconds since the epoch, the stream (VARIANT/REPLICA) and the text."""

    timestamp_ms: int
    stream: str
    text: str


def log_group(endpoint: str) -> str:
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def last_lines(session: Session, endpoint: str, count: int) -> tuple[str, ...]:
    """The last ``count`` lines of all replicas, in order of time."""
    return tuple(line.text for line in tail(session, endpoint, count))


def tail(session: Session, endpoint: str, count: int) -> list[LogLine]:
    """The same with time and stream. Raises NotFound if nothing was ever logged."""
    lines: list[LogLine] = []
    for stream in _streams(session, endpoint):
        answer = _events(session, endpoint, stream, limit=max(count, 1), startFromHead=False)
        lines.extend(_lines(stream, answer))
    return sorted(lines, key=lambda line: line.timestamp_ms)[-count:] if count > 0 else []


def follow(session: Session, endpoint: str, count: int) -> Iterator[LogLine]:
    """The last ``count`` lines, then every new one; ends when the endpoint's log group is gone."""
    tokens: dict[str, str] = {}
    first = True
    polls = 0
    streams: list[str] = []
    while True:
        if polls % _POLLS_BETWEEN_STREAM_LISTS == 0:
            try:
                streams = _streams(session, endpoint)
            except NotFound:
                if not first:
                    return
                raise
        fresh: list[LogLine] = []
        for stream in streams:
            fresh.extend(_news(session, endpoint, stream, tokens, count if first else 0))
        fresh.sort(key=lambda line: line.timestamp_ms)
        yield from fresh[-count:] if first and count > 0 else ([] if first else fresh)
        first = False
        polls += 1
        session.clock.sleep(_POLL_S)


def _news(
    session: Session, endpoint: str, stream: str, tokens: dict[str, str], count: int
) -> list[LogLine]:
    """What this stream has that we have not read; moves its token on."""
    lines: list[LogLine] = []
    if stream not in tokens and count > 0:
        answer = _events(session, endpoint, stream, limit=count, startFromHead=False)
        tokens[stream] = str(answer["nextForwardToken"])
        return _lines(stream, answer)
    while True:
        position = {"nextToken": tokens[stream]} if stream in tokens else {}
        try:
            answer = _events(session, endpoint, stream, startFromHead=True, **position)
        except NotFound:
            return lines
        lines.extend(_lines(stream, answer))
        token = str(answer["nextForwardToken"])
        if token == tokens.get(stream) or not answer.get("events"):
            tokens[stream] = token
            return lines
        tokens[stream] = token


def _streams(session: Session, endpoint: str) -> list[str]:
    names: list[str] = []
    with session.call():
        pages = session.logs_client.get_paginator("describe_log_streams").paginate(
            logGroupName=log_group(endpoint)
        )
        for page in pages:
            names.extend(str(stream["logStreamName"]) for stream in page.get("logStreams", ()))
    return names


def _events(session: Session, endpoint: str, stream: str, **arguments: Any) -> dict[str, Any]:
    with session.call():
        answer = session.logs_client.get_log_events(
            logGroupName=log_group(endpoint), logStreamName=stream, **arguments
        )
    return dict(answer)


def _lines(stream: str, answer: dict[str, Any]) -> list[LogLine]:
    return [
        LogLine(int(event.get("timestamp", 0)), stream, str(event.get("message", "")).rstrip("\n"))
        for event in answer.get("events", ())
    ]
