"""Log groups and streams on disk, read as CloudWatch Logs reads them.

A stream is one append-only file of lines ``{"t": <ms since the epoch>, "m": "<text>"}`` that a
replica's shim writes; positions are byte offsets, so paging costs what it returns, from either
end. A last line without its newline is still being written and is not returned; a line that is not
such JSON (a writer was killed in the middle of it) is skipped. How long a group's streams are kept
lies in a file beside them. Who writes is not known here; one whose file is gone begins it anew.
"""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

from ridgeline_service.files import write_atomic
from ridgeline_service.paths import DataDir

MAX_PAGE_BYTES = 1024 * 1024
_BLOCK = 64 * 1024
_SUFFIX = ".jsonl"
_RETENTION = "retention-days"
_DAY_MS = 24 * 3600 * 1000
# Lines are in order of time but for a clock that was set back: how far back is still found.
_SLACK_MS = 60_000


class NoSuchLog(LookupError):
    """No group or stream of that name."""


class InvalidPosition(ValueError):
    """A position that is not the start of a line of this stream."""


@dataclass(frozen=True)
class LogEvent:
    """One line; ``start`` and ``end`` are its byte offsets in the stream."""

    timestamp: int
    message: str
    start: int
    end: int


@dataclass(frozen=True)
class Window:
    """Which events are wanted: ``start <= timestamp < end``, in milliseconds; None is open."""

    start: int | None = None
    end: int | None = None

    def holds(self, timestamp: int) -> bool:
        return (self.start is None or timestamp >= self.start) and (
            self.end is None or timestamp < self.end
        )

    def is_long_before(self, timestamp: int) -> bool:
        return self.start is not None and timestamp < self.start - _SLACK_MS

    def is_long_after(self, timestamp: int) -> bool:
        return self.end is not None and timestamp >= self.end + _SLACK_MS


@dataclass(frozen=True)
class LogPage:
    """Events in the order of the stream, and where to go on before and after them."""

    events: tuple[LogEvent, ...]
    before: int
    after: int


@dataclass(frozen=True)
class StreamInfo:
    """``first`` and ``last`` are timestamps in milliseconds, None while the stream is empty."""

    name: str
    created: int
    first: int | None
    last: int | None
    size: int


@dataclass(frozen=True)
class GroupInfo:
    """``retention_days`` is None where streams are kept for ever."""

    name: str
    created: int
    size: int
    retention_days: int | None


class LogStore:
    """All groups under one folder. Reads what is there at the time of the call."""

    def __init__(self, data_dir: DataDir) -> None:
        self._root = data_dir.log_groups

    def groups(self) -> list[GroupInfo]:
        """Every group, by name."""
        found = []
        for folder in _entries(self._root):
            if folder.is_dir():
                size = sum(_stat(file).st_size for file in _streams(folder))
                name, days = unquote(folder.name), _retention_days(folder)
                found.append(GroupInfo(name, _created(folder), size, days))
        return sorted(found, key=lambda group: group.name)

    def streams(self, group: str, prefix: str = "") -> list[StreamInfo]:
        """The streams of a group, by name. Raises NoSuchLog."""
        found = []
        for file in _streams(self._group(group)):
            name = unquote(file.name.removesuffix(_SUFFIX))
            if name.startswith(prefix):
                found.append(_stream_info(name, file))
        return sorted(found, key=lambda stream: stream.name)

    def has_group(self, group: str) -> bool:
        try:
            self._group(group)
        except NoSuchLog:
            return False
        return True

    def keep_for(self, group: str, days: int | None) -> None:
        """How long ``expire`` keeps a stream of the group after its last line; None is for ever.
        Raises NoSuchLog."""
        file = self._group(group) / _RETENTION
        if days is None:
            file.unlink(missing_ok=True)
        else:
            write_atomic(file, str(days), mode=0o600)

    def expire(self, now_ms: int) -> None:
        """Delete the streams that have not been written to for as long as their group keeps
        them."""
        for folder in _entries(self._root):
            days = _retention_days(folder)
            if days is None:
                continue
            for file in _streams(folder):
                if _stat(file).st_mtime * 1000 < now_ms - days * _DAY_MS:
                    file.unlink(missing_ok=True)

    def delete_group(self, group: str) -> None:
        """Delete a group and all its streams. Raises NoSuchLog."""
        folder = self._group(group)
        for file in _entries(folder):
            file.unlink(missing_ok=True)
        # Somebody who still writes may have begun a new stream.
        with suppress(OSError):
            folder.rmdir()

    def delete_stream(self, group: str, stream: str) -> None:
        """Raises NoSuchLog."""
        self._stream(group, stream).unlink(missing_ok=True)

    def read_forward(
        self, group: str, stream: str, *, position: int = 0, limit: int, window: Window
    ) -> LogPage:
        """Events from ``position`` on. Raises NoSuchLog, InvalidPosition."""
        events: list[LogEvent] = []
        size = 0
        after = position
        with self._open(group, stream, position) as file:
            for event in _within(file, position, window):
                if window.holds(event.timestamp):
                    size += len(event.message) + 26
                    if len(events) == limit or (events and size > MAX_PAGE_BYTES):
                        break
                    events.append(event)
                after = event.end
        before = events[0].start if events else position
        return LogPage(tuple(events), before, after)

    def read_backward(
        self, group: str, stream: str, *, position: int | None = None, limit: int, window: Window
    ) -> LogPage:
        """The last events before ``position`` (None: the end), oldest first.

        Raises NoSuchLog, InvalidPosition.
        """
        events: list[LogEvent] = []
        size = 0
        with self._open(group, stream, position or 0) as file:
            end = _end(file) if position is None else position
            before = end
            for event in _backward(file, end):
                if window.is_long_before(event.timestamp):
                    break
                if window.holds(event.timestamp):
                    size += len(event.message) + 26
                    if len(events) == limit or (events and size > MAX_PAGE_BYTES):
                        break
                    events.append(event)
                before = event.start
        events.reverse()
        after = events[-1].end if events else end
        return LogPage(tuple(events), before, after)

    def merge(
        self, group: str, positions: dict[str, int], window: Window
    ) -> Generator[tuple[str, LogEvent], None, None]:
        """Events of several streams by time, each read from its own position.

        Raises NoSuchLog, InvalidPosition. Close the iterator to close the files.
        """

        def events(
            order: int, stream: str
        ) -> Generator[tuple[int, int, int, str, LogEvent], None, None]:
            with self._open(group, stream, positions[stream]) as file:
                for event in _within(file, positions[stream], window):
                    if window.holds(event.timestamp):
                        yield event.timestamp, order, event.start, stream, event

        sources = [events(order, stream) for order, stream in enumerate(sorted(positions))]
        try:
            for _, _, _, stream, event in heapq.merge(*sources):
                yield stream, event
        finally:
            for source in sources:
                source.close()

    def _group(self, group: str) -> Path:
        # quote() leaves dots alone, and these two names are other folders.
        folder = self._root / quote(group, safe="")
        if group in ("", ".", "..") or not _exists(folder, Path.is_dir):
            raise NoSuchLog(f"no log group {group!r}")
        return folder

    def _stream(self, group: str, stream: str) -> Path:
        path = self._group(group) / f"{quote(stream, safe='')}{_SUFFIX}"
        if not _exists(path, Path.is_file):
            raise NoSuchLog(f"no log stream {stream!r} in group {group!r}")
        return path

    def _open(self, group: str, stream: str, position: int) -> BinaryIO:
        try:
            file = self._stream(group, stream).open("rb")
        except FileNotFoundError:  # deleted just now
            raise NoSuchLog(f"no log stream {stream!r} in group {group!r}") from None
        if position:
            file.seek(position - 1)
            if file.read(1) != b"\n":
                file.close()
                raise InvalidPosition(f"no line of stream {stream!r} starts at {position}")
        return file


def _within(file: BinaryIO, position: int, window: Window) -> Iterator[LogEvent]:
    """Events from ``position`` on, without most of those before and after the window."""
    for event in _forward(file, _skip(file, position, window)):
        if window.is_long_after(event.timestamp):
            return
        yield event


def _skip(file: BinaryIO, position: int, window: Window) -> int:
    """A line start at or after ``position`` with nothing of the window before it, by bisection."""
    low, high = position, file.seek(0, os.SEEK_END)
    while window.start is not None and high - low > _BLOCK:
        middle = (low + high) // 2
        file.seek(middle)
        cut = len(file.readline())
        event = next(_forward(file, middle + cut), None)
        if event is not None and event.start < high and window.is_long_before(event.timestamp):
            low = event.end
        else:
            high = middle
    return low


def _forward(file: BinaryIO, position: int) -> Iterator[LogEvent]:
    file.seek(position)
    for line in file:
        if not line.endswith(b"\n"):
            return
        event = _parse(line, position)
        position += len(line)
        if event is not None:
            yield event


def _backward(file: BinaryIO, end: int) -> Iterator[LogEvent]:
    """Events that end at ``end`` or before, newest first, read in blocks from there."""
    rest = b""
    position = end
    while position > 0:
        start = max(0, position - _BLOCK)
        file.seek(start)
        block = file.read(position - start) + rest
        position = start
        lines = _split(block)
        # The first line may have begun in the block before: it waits for that one.
        rest = lines.pop(0) if start > 0 else b""
        at = start + len(rest) + sum(map(len, lines))
        for line in reversed(lines):
            at -= len(line)
            event = _parse(line, at)
            if event is not None:
                yield event


def _split(block: bytes) -> list[bytes]:
    """Lines with their newlines; unlike splitlines, a stray carriage return ends none."""
    parts = [part + b"\n" for part in block.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    return [part for part in parts if part]


def _end(file: BinaryIO) -> int:
    """The offset after the last whole line."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - _BLOCK)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _parse(line: bytes, start: int) -> LogEvent | None:
    try:
        raw = json.loads(line)
        timestamp, message = raw["t"], raw["m"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if type(timestamp) is not int or not isinstance(message, str):
        return None
    return LogEvent(timestamp, message, start, start + len(line))


def _stream_info(name: str, path: Path) -> StreamInfo:
    first = last = None
    try:
        with path.open("rb") as file:
            opening = next(_forward(file, 0), None)
            closing = next(_backward(file, _end(file)), None)
    except FileNotFoundError:
        opening = closing = None
    if opening is not None and closing is not None:
        first, last = opening.timestamp, closing.timestamp
    return StreamInfo(name, first or _created(path), first, last, _stat(path).st_size)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _streams(folder: Path) -> list[Path]:
    return [file for file in _entries(folder) if file.name.endswith(_SUFFIX)]


def _retention_days(folder: Path) -> int | None:
    try:
        return int((folder / _RETENTION).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _exists(path: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(path)
    except OSError:  # a name that is too long for a file was never one
        return False


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        return os.stat_result((0,) * 10)


def _created(path: Path) -> int:
    return int(_stat(path).st_ctime * 1000)
