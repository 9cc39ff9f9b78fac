"""What the script says: its lines, as they pass, are searched for metrics and the last are kept.

Fed with bytes as they come from the pipe. Knows neither process nor log.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Sequence

from ridgeline_service.training.order import MetricDefinition
from ridgeline_service.training.report import MetricValue

TAIL_LINES = 60
MAX_LINE = 64 << 10
_FLOAT32_MAX = 3.4028234663852886e38


class Output:
    """``now`` gives microseconds since the epoch. Used by one thread at a time."""

    def __init__(self, definitions: Sequence[MetricDefinition], now: Callable[[], int]) -> None:
        self._now = now
        self._patterns = [(item.name, re.compile(item.regex)) for item in definitions]
        self._rests = {False: b"", True: b""}
        self._last: dict[str, MetricValue] = {}
        self._fresh: list[MetricValue] = []
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._errors: deque[str] = deque(maxlen=TAIL_LINES)

    def feed(self, data: bytes, *, is_error: bool = False) -> None:
        """What came from standard output, or from standard error. A carriage return ends a line
        too: progress bars use it."""
        *lines, rest = (self._rests[is_error] + data).replace(b"\r", b"\n").split(b"\n")
        if len(rest) > MAX_LINE:
            lines.append(rest)
            rest = b""
        self._rests[is_error] = rest
        for line in lines if self._patterns else lines[-TAIL_LINES:]:
            self._take(line, is_error)

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

    @property
    def metrics(self) -> tuple[MetricValue, ...]:
        """The last value of each metric, in the order of their definitions."""
        return tuple(self._last[name] for name, _ in self._patterns if name in self._last)

    def take_fresh(self) -> list[MetricValue]:
        """Values since the last call."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def _take(self, line: bytes, is_error: bool) -> None:
        if not line.strip():
            return
        text = line[:MAX_LINE].decode("utf-8", "replace")
        self._tail.append(text)
        if is_error:
            self._errors.append(text)
        for name, pattern in self._patterns:
            found = pattern.search(text)
            value = _number(found) if found is not None else None
            if value is not None:
                self._last[name] = MetricValue(name, value, self._now())
                self._fresh.append(self._last[name])


def _number(found: re.Match[str]) -> float | None:
    """Group 1 as a number of 32 bits; None where it is no finite one."""
    try:
        value = float(found.group(1))
    except (IndexError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) and abs(value) <= _FLOAT32_MAX else None
