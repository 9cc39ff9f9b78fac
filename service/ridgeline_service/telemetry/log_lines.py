"""The lines of one log stream's file, read from either end, and places between them.

The file is append-only, lines ``{"t": <ms since the epoch>, "m": "<text>"}``; a place is a byte
offset, so paging costs what it returns. A last line without its newline is still being written and
is not returned; a line that is not such JSON (a writer was killed in the middle of it) is skipped.
Which file it is, and who writes it, is not known here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import BinaryIO

_BLOCK = 64 * 1024
_OPENING_BYTES = 1024
# Lines are in order of time but for a clock that was set back: how far back is still found.
_SLACK_MS = 60_000


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
class Position:
    """A place between two lines: how many bytes lie before it, and the ``opening`` of the file that
    they lie in. A file that was deleted and begun anew under the same name has another one."""

    offset: int = 0
    opening: str = ""


START = Position()
"""Before the first line, whatever it will be."""


def position_at(file: BinaryIO, offset: int) -> Position:
    """The place ``offset`` bytes after the start, which is the start of a line."""
    return Position(offset, _opening(file)) if offset else START


def offset_of(file: BinaryIO, position: Position) -> int:
    """Where in this file a position is; the start if it was one in a file before this one. Raises
    InvalidPosition."""
    if position.offset == 0 or position.opening != _opening(file):
        return 0
    if os.pread(file.fileno(), 1, position.offset - 1) != b"\n":
        raise InvalidPosition(f"no line starts at {position.offset}")
    return position.offset


def within(file: BinaryIO, position: int, window: Window) -> Iterator[LogEvent]:
    """Events from ``position`` on, without most of those before and after the window."""
    for event in forward(file, _skip(file, position, window)):
        if window.is_long_after(event.timestamp):
            return
        yield event


def forward(file: BinaryIO, position: int) -> Iterator[LogEvent]:
    file.seek(position)
    for line in file:
        if not line.endswith(b"\n"):
            return
        event = _parse(line, position)
        position += len(line)
        if event is not None:
            yield event


def backward(file: BinaryIO, end: int) -> Iterator[LogEvent]:
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


def end_of(file: BinaryIO) -> int:
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


def _opening(file: BinaryIO) -> str:
    """Tells the file from others of its name by its first line, which has the time it was written.
    An inode number would not do: it is free for the next file once this one is deleted."""
    line = os.pread(file.fileno(), _OPENING_BYTES, 0).partition(b"\n")[0]
    return blake2b(line, digest_size=8).hexdigest()


def _skip(file: BinaryIO, position: int, window: Window) -> int:
    """A line start at or after ``position`` with nothing of the window before it, by bisection."""
    low, high = position, file.seek(0, os.SEEK_END)
    while window.start is not None and high - low > _BLOCK:
        middle = (low + high) // 2
        file.seek(middle)
        cut = len(file.readline())
        event = next(forward(file, middle + cut), None)
        if event is not None and event.start < high and window.is_long_before(event.timestamp):
            low = event.end
        else:
            high = middle
    return low


def _split(block: bytes) -> list[bytes]:
    """Lines with their newlines; unlike splitlines, a stray carriage return ends none."""
    parts = [part + b"\n" for part in block.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    return [part for part in parts if part]


def _parse(line: bytes, start: int) -> LogEvent | None:
    try:
        raw = json.loads(line)
        timestamp, message = raw["t"], raw["m"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if type(timestamp) is not int or not isinstance(message, str):
        return None
    return LogEvent(timestamp, message, start, start + len(line))
