"""The lines that an endpoint's replicas wrote, from CloudWatch Logs' API.

One log group an endpoint, one stream a replica; here they become one sequence in order of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ridgeline._endpoints import describe
from ridgeline.errors import NotFound

if TYPE_CHECKING:
    from ridgeline.session import Session

_LIMIT = 10_000
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
    for stream in _streams(session, endpoint) if count > 0 else ():
        answer = _events(session, endpoint, stream, limit=min(count, _LIMIT), startFromHead=False)
        lines.extend(_lines(stream, answer))
    return sorted(lines, key=lambda line: line.timestamp_ms)[-count:]


def follow(session: Session, endpoint: str, count: int) -> Iterator[LogLine]:
    """The last ``count`` lines, then every new one, until the endpoint is gone.

    An endpoint that has written nothing yet is waited for. Raises NotFound if there is neither an
    endpoint nor a log of it.
    """
    tokens: dict[str, str] = {}
    streams: list[str] = []
    living = True
    polls = 0
    while living:
        if polls % _POLLS_BETWEEN_STREAM_LISTS == 0:
            living = _lives(session, endpoint)
            try:
                streams = _streams(session, endpoint)
            except NotFound:
                if not living and polls == 0:
                    raise
        fresh: list[LogLine] = []
        for stream in streams:
            fresh.extend(_news(session, endpoint, stream, tokens, count if polls == 0 else 0))
        fresh.sort(key=lambda line: line.timestamp_ms)
        if polls == 0:
            fresh = fresh[-count:] if count > 0 else []
        yield from fresh
        polls += 1
        if living:
            session.clock.sleep(_POLL_S)


def _lives(session: Session, endpoint: str) -> bool:
    try:
        describe(session, endpoint)
    except NotFound:
        return False
    return True


def _news(
    session: Session, endpoint: str, stream: str, tokens: dict[str, str], count: int
) -> list[LogLine]:
    """What this stream has that we have not read; moves its token on."""
    lines: list[LogLine] = []
    if stream not in tokens and count > 0:
        answer = _events(session, endpoint, stream, limit=min(count, _LIMIT), startFromHead=False)
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
