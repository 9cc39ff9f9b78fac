"""Lines of several replicas as one sequence, once and followed."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from ridgeline._logs import follow, of_endpoint, tail
from ridgeline.errors import NotFound
from ridgeline.session import Session


class Streams:
    """CloudWatch Logs as far as it is read: tokens are positions, repeated at the end."""

    def __init__(self, fake: Any, reply: Any) -> None:
        self.lines: dict[str, list[tuple[int, str]]] = {}
        self._reply = reply
        fake.rules["DescribeLogStreams"] = lambda call: reply(
            {"logStreams": [{"logStreamName": name} for name in self.lines]}
        )
        fake.rules["GetLogEvents"] = self._events

    def _events(self, call: Any) -> Any:
        request = call.json
        lines = self.lines[request["logStreamName"]]
        limit = request.get("limit", 10_000)
        if "nextToken" in request:
            start = int(request["nextToken"].removeprefix("f/"))
        else:
            start = 0 if request.get("startFromHead") else max(len(lines) - limit, 0)
        chosen = lines[start : start + limit]
        return self._reply(
            {
                "events": [{"timestamp": t, "message": m} for t, m in chosen],
                "nextForwardToken": f"f/{start + len(chosen)}",
                "nextBackwardToken": f"b/{start}",
            }
        )


@pytest.fixture
def streams(fake: Any, sdk_tools: Any) -> Streams:
    fake.endpoint("e")
    return Streams(fake, sdk_tools.Reply)


def test_replicas_are_merged_by_time(session: Session, streams: Streams) -> None:
    streams.lines = {"blue/1": [(1, "a"), (4, "d")], "blue/2": [(2, "b"), (3, "c")]}
    assert [line.text for line in tail(session, of_endpoint("e"), 10)] == ["a", "b", "c", "d"]
    assert [(line.stream, line.text) for line in tail(session, of_endpoint("e"), 2)] == [
        ("blue/2", "c"),
        ("blue/1", "d"),
    ]
    assert tail(session, of_endpoint("e"), 0) == []


def test_following_gives_every_line_once(session: Session, streams: Streams, clock: Any) -> None:
    """Also the lines of a replica that came later."""
    streams.lines = {"blue/1": [(1, "old"), (2, "last")]}

    def write() -> None:
        polls = len(clock.slept)
        if polls == 2:
            streams.lines["blue/1"].append((3, "new"))
        if polls == 3:
            streams.lines["blue/2"] = [(4, "other replica")]

    clock.on_sleep = write
    lines = islice(follow(session, of_endpoint("e"), 1), 3)
    assert [line.text for line in lines] == ["last", "new", "other replica"]


def test_following_from_now(session: Session, streams: Streams, clock: Any) -> None:
    streams.lines = {"blue/1": [(1, "old")]}
    clock.on_sleep = lambda: streams.lines["blue/1"].append((2, "new"))
    assert next(follow(session, of_endpoint("e"), 0)).text == "new"


def test_following_a_stream_that_is_deleted_and_begun_anew(
    fake: Any, session: Session, streams: Streams, clock: Any, sdk_tools: Any
) -> None:
    """Listed as it was deleted, and again after a poll that finds nothing of it."""
    known = fake.rules["GetLogEvents"]
    deleted = sdk_tools.aws_error("ResourceNotFoundException", "The log stream does not exist.")
    fake.rules["GetLogEvents"] = deleted
    streams.lines = {"blue/1": [(1, "first")]}

    def poll() -> None:
        polls = len(clock.slept)
        fake.rules["GetLogEvents"] = deleted if polls == 2 else known
        if polls == 3:
            streams.lines["blue/1"].append((2, "second"))

    clock.on_sleep = poll
    lines = islice(follow(session, of_endpoint("e"), 10), 2)
    assert [line.text for line in lines] == ["first", "second"]


def gone(fake: Any, sdk_tools: Any) -> None:
    """The endpoint is deleted; its log stays, as in CloudWatch."""
    fake.rules["DescribeEndpoint"] = sdk_tools.aws_error(
        "ValidationException", 'Could not find endpoint "e".'
    )


def no_log(fake: Any, sdk_tools: Any) -> None:
    fake.rules["DescribeLogStreams"] = sdk_tools.aws_error(
        "ResourceNotFoundException", "The specified log group does not exist."
    )


def test_following_ends_with_the_endpoint(
    fake: Any, session: Session, streams: Streams, clock: Any, sdk_tools: Any
) -> None:
    """After its last lines."""
    streams.lines = {"blue/1": [(1, "first")]}

    def delete() -> None:
        if len(clock.slept) == 2:
            streams.lines["blue/1"].append((2, "last"))
            gone(fake, sdk_tools)

    clock.on_sleep = delete
    assert [line.text for line in follow(session, of_endpoint("e"), 10)] == ["first", "last"]
    assert len(clock.slept) < 10


def test_following_an_endpoint_that_has_written_nothing_yet(
    fake: Any, session: Session, streams: Streams, clock: Any, sdk_tools: Any
) -> None:
    known = fake.rules["DescribeLogStreams"]
    no_log(fake, sdk_tools)

    def begin() -> None:
        streams.lines = {"blue/1": [(1, "hello")]}
        fake.rules["DescribeLogStreams"] = known

    clock.on_sleep = begin
    assert next(follow(session, of_endpoint("e"), 10)).text == "hello"


def test_a_log_that_never_was(fake: Any, session: Session, sdk_tools: Any) -> None:
    no_log(fake, sdk_tools)
    gone(fake, sdk_tools)
    with pytest.raises(NotFound):
        tail(session, of_endpoint("e"), 10)
    with pytest.raises(NotFound):
        next(follow(session, of_endpoint("e"), 10))
