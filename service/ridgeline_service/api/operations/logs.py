"""CloudWatch Logs without its writing side: groups, streams, their events by page or by filter,
how long they are kept, and their end."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, TypeVar

from ridgeline_service.api.operations import Answer, Caller, Table
from ridgeline_service.errors import AwsError
from ridgeline_service.settings import Settings
from ridgeline_service.telemetry.log_lines import (
    START,
    InvalidPosition,
    LogEvent,
    Position,
    Window,
)
from ridgeline_service.telemetry.logs import (
    MAX_PAGE_BYTES,
    GroupInfo,
    LogStore,
    NoSuchLog,
    StreamInfo,
)

MAX_EVENTS = 10_000
MAX_LISTED = 50
RETENTION_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731),
    *(1096, 1827, 2192, 2557, 2922, 3288, 3653),
)
"""What CloudWatch allows."""
_MAX_SCANNED = 200_000
_POSITION = re.compile(r"0|(?P<offset>[0-9]{1,18})@(?P<opening>[0-9a-f]{16})")

T = TypeVar("T")


class ResourceNotFoundException(AwsError):
    code = "ResourceNotFoundException"
    http_status = 400


class InvalidParameterException(AwsError):
    code = "InvalidParameterException"
    http_status = 400


class LogOperations:
    """The operations over one store. Requests are checked; members are those of the model."""

    def __init__(self, store: LogStore, settings: Settings) -> None:
        self._store = store
        self._arn = f"arn:aws:logs:{settings.region}:{settings.account_id}:log-group:"

    def table(self) -> Table:
        return {
            "DescribeLogGroups": self.describe_log_groups,
            "DescribeLogStreams": self.describe_log_streams,
            "GetLogEvents": self.get_log_events,
            "FilterLogEvents": self.filter_log_events,
            "PutRetentionPolicy": self.put_retention_policy,
            "DeleteRetentionPolicy": self.delete_retention_policy,
            "DeleteLogGroup": self.delete_log_group,
            "DeleteLogStream": self.delete_log_stream,
        }

    def describe_log_groups(self, request: Mapping[str, Any], caller: Caller) -> Answer:
        prefix = request.get("logGroupNamePrefix", "")
        pattern = request.get("logGroupNamePattern", "").lower()
        if prefix and pattern:
            raise InvalidParameterException(
                "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters."
            )
        groups = [
            group
            for group in self._store.groups()
            if group.name.startswith(prefix) and pattern in group.name.lower()
        ]
        page, token = _page(groups, request, lambda group: group.name)
        return _with_token({"logGroups": [self._group(group) for group in page]}, token)

    def describe_log_streams(self, request: Mapping[str, Any], caller: Caller) -> Answer:
        group = self._group_name(request)
        prefix = request.get("logStreamNamePrefix", "")
        by_time = request.get("orderBy") == "LastEventTime"
        if by_time and prefix:
            raise InvalidParameterException(
                "Cannot order by LastEventTime with a logStreamNamePrefix."
            )
        streams = self._found(group, lambda: self._store.streams(group, prefix))
        if by_time:
            streams.sort(key=lambda stream: (stream.last or 0, stream.name))
        if request.get("descending"):
            streams.reverse()
        page, token = _page(streams, request, lambda stream: stream.name)
        return _with_token({"logStreams": [self._stream(group, item) for item in page]}, token)

    def get_log_events(self, request: Mapping[str, Any], caller: Caller) -> Answer:
        """Pages go both ways; at either end the token of that way comes back unchanged. One from
        before the stream was deleted and begun anew means its start."""
        group, stream = self._group_name(request), request["logStreamName"]
        window = Window(request.get("startTime"), request.get("endTime"))
        limit = request.get("limit", MAX_EVENTS)
        forward, position = request.get("startFromHead", False), None
        if "nextToken" in request:
            forward, position = _read_way(request["nextToken"])
        read = self._store.read_forward if forward else self._store.read_backward
        options = {} if position is None else {"position": position}
        page = self._found(
            group, lambda: read(group, stream, limit=limit, window=window, **options)
        )
        return {
            "events": [_output_event(event) for event in page.events],
            "nextForwardToken": f"f/{_write_position(page.after)}",
            "nextBackwardToken": f"b/{_write_position(page.before)}",
        }

    def filter_log_events(self, request: Mapping[str, Any], caller: Caller) -> Answer:
        """Events of several streams by time. The token holds each stream's position."""
        group = self._group_name(request)
        names = request.get("logStreamNames")
        prefix = request.get("logStreamNamePrefix", "")
        if names and prefix:
            raise InvalidParameterException(
                "logStreamNames and logStreamNamePrefix are mutually exclusive parameters."
            )
        window = Window(request.get("startTime"), request.get("endTime"))
        if window.start is not None and window.end is not None and window.end < window.start:
            raise InvalidParameterException("endTime must not be before startTime.")
        matches = parse_filter(request.get("filterPattern", ""))
        streams = self._found(group, lambda: self._store.streams(group, prefix))
        positions = {item.name: START for item in streams if not names or item.name in names}
        if "nextToken" in request:
            known = _read_positions(request["nextToken"])
            positions = {name: known.get(name, start) for name, start in positions.items()}
        limit = request.get("limit", MAX_EVENTS)

        def collect() -> tuple[list[dict[str, object]], bool]:
            found: list[dict[str, object]] = []
            size = 0
            merged = self._store.merge(group, dict(positions), window)
            try:
                for stream, event, after in islice(merged, _MAX_SCANNED):
                    if matches(event.message):
                        size += len(event.message) + 26
                        if len(found) == limit or (found and size > MAX_PAGE_BYTES):
                            return found, True
                        found.append(
                            {
                                **_output_event(event),
                                "logStreamName": stream,
                                "eventId": f"{event.timestamp:020d}{event.start:020d}",
                            }
                        )
                    positions[stream] = after
                return found, next(merged, None) is not None
            finally:
                merged.close()

        events, more = self._found(group, collect)
        searched = [{"logStreamName": name, "searchedCompletely": not more} for name in positions]
        answer = {"events": events, "searchedLogStreams": searched}
        return _with_token(answer, _write_positions(positions) if more else None)

    def put_retention_policy(self, request: Mapping[str, Any], caller: Caller) -> Answer:
        group, days = request["logGroupName"], request["retentionInDays"]
        if days not in RETENTION_DAYS:
            allowed = ", ".join(map(str, RETENTION_DAYS))
            raise InvalidParameterException(f"retentionInDays {days} is not one of {allowed}.")
        self._found(group, lambda: self._store.keep_for(group, days))
        return {}

    def delete_retention_policy(self, request: Mapping[str, Any], caller: Caller) -> Answer:
        group = request["logGroupName"]
        self._found(group, lambda: self._store.keep_for(group, None))
        return {}

    def delete_log_group(self, request: Mapping[str, Any], caller: Caller) -> Answer:
        group = request["logGroupName"]
        self._found(group, lambda: self._store.delete_group(group))
        return {}

    def delete_log_stream(self, request: Mapping[str, Any], caller: Caller) -> Answer:
        group, stream = request["logGroupName"], request["logStreamName"]
        self._found(group, lambda: self._store.delete_stream(group, stream))
        return {}

    def _group_name(self, request: Mapping[str, Any]) -> str:
        name = request.get("logGroupName")
        identifier = request.get("logGroupIdentifier")
        if (name is None) == (identifier is None):
            raise InvalidParameterException(
                "Provide exactly one of logGroupName and logGroupIdentifier."
            )
        if name is not None:
            return str(name)
        return str(identifier).removeprefix(self._arn).removesuffix(":*")

    def _found(self, group: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except NoSuchLog:
            what = "stream" if self._store.has_group(group) else "group"
            raise ResourceNotFoundException(f"The specified log {what} does not exist.") from None
        except InvalidPosition:
            raise _bad_token() from None

    def _group(self, group: GroupInfo) -> dict[str, object]:
        days = group.retention_days
        return {
            "logGroupName": group.name,
            "creationTime": group.created,
            **({} if days is None else {"retentionInDays": days}),
            "metricFilterCount": 0,
            "arn": f"{self._arn}{group.name}:*",
            "logGroupArn": f"{self._arn}{group.name}",
            "storedBytes": group.size,
            "logGroupClass": "STANDARD",
        }

    def _stream(self, group: str, stream: StreamInfo) -> dict[str, object]:
        return {
            "logStreamName": stream.name,
            "creationTime": stream.created,
            "firstEventTimestamp": stream.first,
            "lastEventTimestamp": stream.last,
            "lastIngestionTime": stream.last,
            "uploadSequenceToken": "0",
            "arn": f"{self._arn}{group}:log-stream:{stream.name}",
            "storedBytes": stream.size,
        }


def parse_filter(pattern: str) -> Callable[[str], bool]:
    """A CloudWatch filter of words: all plain terms, any of the ``?terms``, none of ``-terms``.

    Raises InvalidParameterException for JSON, column and regular-expression filters.
    """
    stripped = pattern.strip()
    if stripped[:1] in ("{", "[", "%"):
        raise InvalidParameterException(
            f"Filter pattern {stripped[:80]!r} is of a kind that is not supported.",
        )
    required: list[str] = []
    optional: list[str] = []
    excluded: list[str] = []
    for sign, quoted, plain in re.findall(r'([?-]?)(?:"((?:[^"\\]|\\.)*)"|(\S+))', stripped):
        term = quoted.replace('\\"', '"') if quoted else plain
        {"?": optional, "-": excluded, "": required}[sign].append(term)

    def matches(message: str) -> bool:
        return (
            all(term in message for term in required)
            and not any(term in message for term in excluded)
            and (not optional or bool(required) or any(term in message for term in optional))
        )

    return matches


def _output_event(event: LogEvent) -> dict[str, object]:
    return {
        "timestamp": event.timestamp,
        "message": event.message,
        "ingestionTime": event.timestamp,
    }


def _page(
    items: list[T], request: Mapping[str, Any], name: Callable[[T], str]
) -> tuple[list[T], str | None]:
    """One page of a list, after the item that the token names."""
    start = 0
    if "nextToken" in request:
        after = _decode(request["nextToken"])
        names = [name(item) for item in items]
        if not isinstance(after, str) or after not in names:
            raise _bad_token()
        start = names.index(after) + 1
    limit = request.get("limit", MAX_LISTED)
    page = items[start : start + limit]
    more = start + limit < len(items)
    return page, _encode(name(page[-1])) if more else None


def _with_token(answer: Mapping[str, object], token: str | None) -> dict[str, object]:
    return dict(answer) if token is None else {**answer, "nextToken": token}


def _read_way(token: str) -> tuple[bool, Position]:
    way, _, position = token.partition("/")
    if way not in ("f", "b"):
        raise _bad_token()
    return way == "f", _read_position(position)


def _read_positions(token: str) -> dict[str, Position]:
    raw = _decode(token)
    if not isinstance(raw, dict):
        raise _bad_token()
    return {name: _read_position(position) for name, position in raw.items()}


def _write_positions(positions: Mapping[str, Position]) -> str:
    return _encode({name: _write_position(each) for name, each in positions.items() if each.offset})


def _read_position(written: object) -> Position:
    found = _POSITION.fullmatch(written) if isinstance(written, str) else None
    if found is None:
        raise _bad_token()
    return Position(int(found["offset"]), found["opening"]) if found["offset"] else START


def _write_position(position: Position) -> str:
    return f"{position.offset}@{position.opening}" if position.offset else "0"


def _encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def _decode(token: str) -> object:
    try:
        return json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, RecursionError):
        raise _bad_token() from None


def _bad_token() -> InvalidParameterException:
    return InvalidParameterException("The specified nextToken is invalid.")
