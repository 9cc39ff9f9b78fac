"""Finds metrics in lines, in a process of its own.

    finding.py      a line of JSON with the definitions, then a line for each batch of lines

Python's ``re`` lets no other thread run while it searches, and some expressions take for ever: here
they hold nobody up, and a signal interrupts them. Standard library only and run by path, so that it
starts in milliseconds. It ends with its input.
"""

from __future__ import annotations

import json
import math
import re
import signal
import sys
from types import FrameType

SEARCHED = 4096
"""Characters at the beginning of a line in which metrics are looked for."""

PATIENCE_S = 0.1
PATIENCE_LINES = 5
_FLOAT32_MAX = 3.4028234663852886e38


class _TooSlow(Exception):
    """The search took more of a core's time than it may."""


class Finder:
    """One metric in one line after another. A ``regex`` that is slow is given up for the line, and
    after some lines for good; ``said`` collects what its user is to be told of that. In the main
    thread alone, and only after ``interrupts``."""

    def __init__(self, name: str, regex: str, said: list[str]) -> None:
        self.name = name
        self._pattern = re.compile(regex)
        self._said = said
        self._slow = 0

    def value_in(self, line: str) -> float | None:
        if self._slow >= PATIENCE_LINES:
            return None
        try:
            # The time of this process's cores, and not of the clock: it may have to wait for one.
            signal.setitimer(signal.ITIMER_PROF, PATIENCE_S)
            try:
                found = self._pattern.search(line, 0, SEARCHED)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        except (_TooSlow, MemoryError):
            self._give_up()
            return None
        # What touches the end of what was searched may go on behind it.
        if found is None or (found.end(1) == SEARCHED < len(line)):
            return None
        return _number(found.group(1))

    def _give_up(self) -> None:
        self._slow += 1
        if self._slow == 1:
            self._said.append(
                f"[metric {self.name!r}: its Regex took more than {PATIENCE_S} s for a line, which "
                "was left out]"
            )
        if self._slow == PATIENCE_LINES:
            self._said.append(
                f"[metric {self.name!r} is not looked for any more: its Regex was too slow for "
                f"{PATIENCE_LINES} lines. Repetitions inside of repetitions, such as (a+)+, are]"
            )


def interrupts() -> None:
    """Let searches be interrupted in this process."""
    signal.signal(signal.SIGPROF, _interrupt)


def main() -> None:
    interrupts()
    said: list[str] = []
    finders = [Finder(name, regex, said) for name, regex in json.loads(sys.stdin.readline())]
    for batch in sys.stdin:
        found = [
            (finder.name, value, at)
            for at, line in json.loads(batch)
            for finder in finders
            if (value := finder.value_in(line)) is not None
        ]
        print(json.dumps({"found": found, "said": said}), flush=True)  # noqa: T201 (the answer)
        said.clear()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise _TooSlow


def _number(text: str | None) -> float | None:
    """As a number of 32 bits; None where it is no finite one."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= _FLOAT32_MAX else None


if __name__ == "__main__":
    main()
