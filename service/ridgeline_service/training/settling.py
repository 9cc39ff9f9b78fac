"""When a file that a script may still be writing is fit to be uploaded, and what of it.

A file is fit when it has not changed between two looks. One that was replaced is another file of
the same name: it is held open, so that it can be looked at again when a third one stands in its
place. One that changes at every look is taken as it is after a while, which is longer the larger
it is: what is written at a disk's speed is not taken in pieces. Knows no S3.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

from ridgeline_service.training.walking import Found

MOST_WAIT_S = 10.0
_WRITTEN_BYTES_PER_S = 20 << 20
_MOST_HELD = 64
_AT_ONCE = 8 << 20
_TRIES = 5


@dataclass(frozen=True)
class State:
    """Two looks at the same state saw the same content."""

    inode: int
    size: int
    modified_ns: int


class FileShrank(Exception):
    """It became shorter while it was read; a later look will find it whole."""


class Settling:
    """Remembers the files of one folder from look to look. ``clock`` gives seconds, never going
    back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, State] = {}
        self._kept: dict[str, State] = {}
        self._since: dict[str, float] = {}
        self._held: dict[str, tuple[BinaryIO, State]] = {}

    def keep(self, path: str, state: State) -> None:
        """That content is where it belongs."""
        self._kept[path] = state
        self._since.pop(path, None)

    def ready(self, found: Found, *, final: bool, again: bool = False) -> BinaryIO | None:
        """The file to upload now, for the caller to close; None where there is nothing new, or it
        is too early. ``final``: nothing writes any more. ``again``: even what is kept."""
        path, state = found.path, State(found.inode, found.size, found.modified_ns)
        before = self._seen.get(path) or self._kept.get(path)
        self._seen[path] = state
        held = self._take_held(path)
        if self._kept.get(path) == state and not again:
            self._since.pop(path, None)
            _close(held)
            return None
        if final or before == state:
            _close(held)
            return found.open()
        waits_s = self._clock() - self._since.setdefault(path, self._clock())
        if before is not None and before.inode != state.inode:
            self._hold(found)
        if held is not None or waits_s <= MOST_WAIT_S + state.size / _WRITTEN_BYTES_PER_S:
            return held
        return found.open()

    def looked(self, paths: Iterable[str]) -> None:
        """Those are all that there are: what is gone is forgotten, for a file that comes later
        under its name is another one."""
        there = set(paths)
        for path in self._held.keys() - there:
            self._held.pop(path)[0].close()
        for known in (self._seen, self._kept, self._since):
            for path in known.keys() - there:
                del known[path]

    def _hold(self, found: Found) -> None:
        file = found.open() if len(self._held) < _MOST_HELD else None
        if file is not None:
            self._held[found.path] = (file, state_of(file))

    def _take_held(self, path: str) -> BinaryIO | None:
        """What was held since the last look, if it has not changed."""
        file, state = self._held.pop(path, (None, None))
        if file is None or state_of(file) == state:
            return file
        file.close()
        return None


def state_of(file: BinaryIO) -> State:
    status = os.fstat(file.fileno())
    return State(status.st_ino, status.st_size, status.st_mtime_ns)


def snapshot(file: BinaryIO) -> tuple[BinaryIO, State]:
    """What the file holds now, at one size whatever is written meanwhile, and its state. Reading
    it raises FileShrank."""
    state = state_of(file)
    if state.size >= _AT_ONCE:
        return io.BufferedReader(_FirstBytes(file, state.size)), state
    for _ in range(_TRIES):
        file.seek(0)
        content = file.read(state.size)
        before, state = state, state_of(file)
        if state == before:
            break
    return io.BytesIO(content), before


class _FirstBytes(io.RawIOBase):
    """The first ``size`` bytes of a file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__()
        self._handle = file.fileno()
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        wanted = min(len(buffer), max(0, self._size - self._at))
        data = os.pread(self._handle, wanted, self._at)
        if wanted and not data:
            raise FileShrank
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _close(file: BinaryIO | None) -> None:
    if file is not None:
        file.close()
