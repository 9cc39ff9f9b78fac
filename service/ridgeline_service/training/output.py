"""What the script says: its lines, as they pass, are searched for metrics and the last are kept.

Fed with bytes as they come from the pipe. Knows neither process nor log.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

# Not re: that cannot be interrupted, and lets no other thread run while it searches.
import regex

from ridgeline_service.training.order import MetricDefinition
from ridgeline_service.training.report import MetricValue

TAIL_LINES = 60
MAX_LINE = 64 << 10
SEARCHED = 4096
"""Characters at the beginning of a line in which metrics are looked for."""

PATIENCE_S = 0.1
PATIENCE_LINES = 5
_FLOAT32_MAX = 3.4028234663852886e38


class Output:
    """``now`` gives microseconds since the epoch; ``say`` is told of a metric that cannot be looked
    for. Used by one thread at a time."""

    def __init__(
        self,
        definitions: Sequence[MetricDefinition],
        now: Callable[[], int],
        say: Callable[[str], None],
    ) -> None:
        self._now = now
        self._searches = [_Search(item, say) for item in definitions]
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
        for line in lines if self._searches else lines[-TAIL_LINES:]:
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
        return tuple(self._last[it.name] for it in self._searches if it.name in self._last)

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
        for search in self._searches:
            value = search.value_in(text[:SEARCHED])
            if value is not None:
                self._last[search.name] = MetricValue(search.name, value, self._now())
                self._fresh.append(self._last[search.name])


class _Search:
    """One metric in one line after another. A Regex may take for ever, and the script waits: one
    that is slow is given up for the line, and after some lines for the job."""

    def __init__(self, definition: MetricDefinition, say: Callable[[str], None]) -> None:
        self.name = definition.name
        self._pattern = regex.compile(definition.regex)
        self._say = say
        self._slow = 0

    def value_in(self, line: str) -> float | None:
        if self._slow >= PATIENCE_LINES:
            return None
        try:
            # The time of this process's cores, and not of the clock: it may have to wait for one.
            found = self._pattern.search(line, timeout=PATIENCE_S, concurrent=True)
        except TimeoutError:
            self._give_up()
            return None
        return _number(found) if found is not None else None

    def _give_up(self) -> None:
        self._slow += 1
        if self._slow == 1:
            self._say(
                f"[metric {self.name!r}: its Regex took more than {PATIENCE_S} s for a line, which "
                "was left out]"
            )
        if self._slow == PATIENCE_LINES:
            self._say(
                f"[metric {self.name!r} is not looked for any more: its Regex was too slow for "
                f"{PATIENCE_LINES} lines. Repetitions inside of repetitions, such as (a+)+, are]"
            )


def _number(found: regex.Match[str]) -> float | None:
    """Group 1 as a number of 32 bits; None where it is no finite one."""
    try:
        value = float(found.group(1))
    except (IndexError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) and abs(value) <= _FLOAT32_MAX else None
