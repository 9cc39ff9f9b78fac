"""What the script says: its lines, as they pass, are handed on and the last are kept.

Fed with bytes as they come from the pipe. Knows neither process nor log nor metrics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

TAIL_LINES = 60
MAX_LINE = 64 << 10


class Output:
    """``take`` is called with each line that is not empty. Used by one thread at a time."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take_line = take
        self._rests = {False: b"", True: b""}
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._errors: deque[str] = deque(maxlen=TAIL_LINES)

    def feed(self, data: bytes, *, is_error: bool = False) -> None:
        """What came from standard output, or from standard error. A carriage return ends a line
        too: progress bars use it."""
        *lines, rest = (self._rests[is_error] + data).replace(b"\r", b"\n").split(b"\n")
        *parts, self._rests[is_error] = _pieces(rest)
        for line in lines:
            for piece in _pieces(line):
                self._take(piece, is_error)
        for part in parts:
            self._take(part, is_error)

    def close(self) -> None:
        """The last lines, if they had no end."""
        for is_error, rest in self._rests.items():
            self._take(rest, is_error)
            self._rests[is_error] = b""

    @property
    def tail(self) -> list[str]:
        """The last lines that are not empty, oldest first."""
        return list(self._tail)

    @property
    def errors(self) -> list[str]:
        """The same of standard error alone."""
        return list(self._errors)

    def _take(self, line: bytes, is_error: bool) -> None:
        if not line.strip():
            return
        text = line.decode("utf-8", "replace")
        self._tail.append(text)
        if is_error:
            self._errors.append(text)
        self._take_line(text)


def _pieces(line: bytes) -> Iterator[bytes]:
    """Of MAX_LINE bytes at most, cut before a space where there is one: no number is halved."""
    while len(line) > MAX_LINE:
        space = line.rfind(b" ", 1, MAX_LINE)
        cut = space if space > 0 else MAX_LINE
        yield line[:cut]
        line = line[cut:]
    yield line
