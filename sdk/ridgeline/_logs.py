"""The lines that an endpoint's replicas or a job's instances wrote, from CloudWatch Logs' API.

One log group an endpoint and one for all jobs, one stream a replica or instance; here the streams
of a source become one sequence in order of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    """One line: milliseconds since the epoch, the stream (VARIANT/REPLICA or JOB/HOST) and the
    text."""

    timestamp_ms: int
    stream: str
    text: str


@dataclass(frozen=True)
class Source:
    """Streams that belong together: those of a group whose names begin with ``prefix``, and of
    those the ones that ``has`` knows. ``lives`` tells whether more may come."""

    group: str
    prefix: str
    lives: Callable[[Session], bool]
    has: Callable[[str], bool] = lambda stream: True


def of_endpoint(name: str) -> Source:
    def lives(session: Session) -> bool:
        try:
            describe(session, name)
        except NotFound:
            return False
        return True

    return Source(f"/aws/sagemaker/Endpoints/{name}", "", lives)


def last_lines(session: Session, source: Source, count: int) -> tuple[str, ...]:
    """The last ``count`` lines of all streams, in order of time."""
    return tuple(line.text for line in tail(session, source, count))


def tail(session: Session, source: Source, count: int) -> list[LogLine]:
    """The same with time and stream. Raises NotFound if nothing was ever logged."""
    lines: list[LogLine] = []
    for stream in _streams(session, source) if count > 0 else ():
        lines.extend(_news(session, source, stream, {}, count))
    return sorted(lines, key=lambda line: line.timestamp_ms)[-count:]


def follow(session: Session, source: Source, count: int) -> Iterator[LogLine]:
    """The last ``count`` lines, then every new one, until no more can come.

    What has written nothing yet is waited for. Raises NotFound if there is neither the thing nor a
    log of it.
    """
    reader = Follower(session, source)
    living = True
    polls = 0
    while living:
        if polls % _POLLS_BETWEEN_STREAM_LISTS == 0:
            living = source.lives(session)
            try:
                reader.find_streams()
            except NotFound:
                if not living and polls == 0:
                    raise
        yield from reader.fresh(count if polls == 0 else None)
        polls += 1
        if living:
            session.clock.sleep(_POLL_S)


class Follower:
    """Reads what is new, stream by stream, whenever it is asked."""

    def __init__(self, session: Session, source: Source) -> None:
        self._session = session
        self._source = source
        self._tokens: dict[str, str] = {}
        self._streams: list[str] = []

    def find_streams(self) -> None:
        """Look for streams that came. Raises NotFound before anything was logged."""
        self._streams = _streams(self._session, self._source)

    def fresh(self, last: int | None = None) -> list[LogLine]:
        """New lines of all streams in order of time; with ``last``, of those so far only so
        many."""
        found: list[LogLine] = []
        for stream in self._streams:
            found.extend(_news(self._session, self._source, stream, self._tokens, last or 0))
        found.sort(key=lambda line: line.timestamp_ms)
        if last is None:
            return found
        return found[-last:] if last > 0 else []


def _news(
    session: Session, source: Source, stream: str, tokens: dict[str, str], count: int
) -> list[LogLine]:
    """What this stream has that we have not read; moves its token on."""
    lines: list[LogLine] = []
    from_end = stream not in tokens and count > 0
    while True:
        where: dict[str, Any] = {"startFromHead": True}
        if from_end:
            where = {"limit": min(count, _LIMIT), "startFromHead": False}
        elif stream in tokens:
            where["nextToken"] = tokens[stream]
        try:
            answer = _events(session, source, stream, **where)
        except NotFound:  # deleted; whoever writes to it begins it anew
            return lines
        lines.extend(_lines(stream, answer))
        token = str(answer["nextForwardToken"])
        ends = from_end or token == tokens.get(stream) or not answer.get("events")
        tokens[stream] = token
        if ends:
            return lines


def _streams(session: Session, source: Source) -> list[str]:
    names: list[str] = []
    prefix = {"logStreamNamePrefix": source.prefix} if source.prefix else {}
    with session.call():
        pages = session.logs_client.get_paginator("describe_log_streams").paginate(
            logGroupName=source.group, **prefix
        )
        for page in pages:
            names.extend(str(stream["logStreamName"]) for stream in page.get("logStreams", ()))
    return [name for name in names if source.has(name)]


def _events(session: Session, source: Source, stream: str, **arguments: Any) -> dict[str, Any]:
    with session.call():
        answer = session.logs_client.get_log_events(
            logGroupName=source.group, logStreamName=stream, **arguments
        )
    return dict(answer)


def _lines(stream: str, answer: dict[str, Any]) -> list[LogLine]:
    return [
        LogLine(int(event.get("timestamp", 0)), stream, str(event.get("message", "")).rstrip("\n"))
        for event in answer.get("events", ())
    ]
