"""Log groups and streams on disk, read as CloudWatch Logs reads them.

A stream is one file that a replica's shim writes, a line at a time (``log_lines``). How long a
group's streams are kept lies in a file beside them. Who writes is not known here; one whose file is
gone begins it anew, and whoever read the former one goes on at the start of that.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

from ridgeline_service.files import write_atomic
from ridgeline_service.paths import DataDir
from ridgeline_service.telemetry.log_lines import (
    START,
    LogEvent,
    Position,
    Window,
    backward,
    end_of,
    forward,
    offset_of,
    position_at,
    within,
)

MAX_PAGE_BYTES = 1024 * 1024
_SUFFIX = ".jsonl"
_RETENTION = "retention-days"
_DAY_MS = 24 * 3600 * 1000


class NoSuchLog(LookupError):
    """No group or stream of that name."""


@dataclass(frozen=True)
class LogPage:
    """Events in the order of the stream, and where to go on before and after them."""

    events: tuple[LogEvent, ...]
    before: Position
    after: Position


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
        self, group: str, stream: str, *, position: Position = START, limit: int, window: Window
    ) -> LogPage:
        """Events from ``position`` on. Raises NoSuchLog, InvalidPosition."""
        events: list[LogEvent] = []
        size = 0
        with self._open(group, stream) as file:
            start = after = offset_of(file, position)
            for event in within(file, start, window):
                if window.holds(event.timestamp):
                    size += len(event.message) + 26
                    if len(events) == limit or (events and size > MAX_PAGE_BYTES):
                        break
                    events.append(event)
                after = event.end
            before = events[0].start if events else start
            return LogPage(tuple(events), position_at(file, before), position_at(file, after))

    def read_backward(
        self,
        group: str,
        stream: str,
        *,
        position: Position | None = None,
        limit: int,
        window: Window,
    ) -> LogPage:
        """The last events before ``position`` (None: the end), oldest first.

        Raises NoSuchLog, InvalidPosition.
        """
        events: list[LogEvent] = []
        size = 0
        with self._open(group, stream) as file:
            end = before = end_of(file) if position is None else offset_of(file, position)
            for event in backward(file, end):
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
            return LogPage(tuple(events), position_at(file, before), position_at(file, after))

    def merge(
        self, group: str, positions: dict[str, Position], window: Window
    ) -> Generator[tuple[str, LogEvent, Position], None, None]:
        """Events of several streams by time, each read from its own position; with the stream and
        the position after the event.

        Raises NoSuchLog, InvalidPosition. Close the iterator to close the files.
        """

        def events(
            order: int, stream: str
        ) -> Generator[tuple[int, int, int, str, LogEvent, str], None, None]:
            with self._open(group, stream) as file:
                opening = ""
                for event in within(file, offset_of(file, positions[stream]), window):
                    # Once there is a line, the opening stays what it is.
                    opening = opening or position_at(file, event.end).opening
                    if window.holds(event.timestamp):
                        yield event.timestamp, order, event.start, stream, event, opening

        sources = [events(order, stream) for order, stream in enumerate(sorted(positions))]
        try:
            for _, _, _, stream, event, opening in heapq.merge(*sources):
                yield stream, event, Position(event.end, opening)
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

    def _open(self, group: str, stream: str) -> BinaryIO:
        try:
            return self._stream(group, stream).open("rb")
        except FileNotFoundError:  # deleted just now
            raise NoSuchLog(f"no log stream {stream!r} in group {group!r}") from None


def _stream_info(name: str, path: Path) -> StreamInfo:
    first = last = None
    try:
        with path.open("rb") as file:
            opening = next(forward(file, 0), None)
            closing = next(backward(file, end_of(file)), None)
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
