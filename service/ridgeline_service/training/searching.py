"""The values of a job's metrics, found in its lines by a process of their own (``finding``).

Whoever adds a line never waits. Lines that come faster than they are searched wait, up to some
number of characters; then the oldest are left out, and the log says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from ridgeline_service.training import finding
from ridgeline_service.training.order import MetricDefinition
from ridgeline_service.training.report import MetricValue

MOST_WAITING = 32 << 20
"""Characters of lines that wait."""

LAST_WAIT_S = 10.0
_AT_ONCE = 50


class MetricSearch:
    """``say`` is told, on another thread, of what is not looked for. Thread-safe."""

    def __init__(
        self,
        definitions: Sequence[MetricDefinition],
        say: Callable[[str], None],
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._definitions = definitions
        self._say = say
        self._most_waiting = most_waiting
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, str]] = deque()
        self._size = 0
        self._left_out = 0
        self._closing = False
        self._cut_short = False
        self._last: dict[str, MetricValue] = {}
        self._fresh: list[MetricValue] = []
        self._finder: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._search, name="metrics", daemon=True)

    def add(self, line: str, at: int) -> None:
        """``at`` is what its values get as their time: microseconds since the epoch."""
        if not self._definitions:
            return
        with self._changed:
            if self._closing:
                return
            if self._thread.ident is None:
                self._thread.start()
            # One character more: it tells that the line goes on.
            self._waiting.append((at, line[: finding.SEARCHED + 1]))
            self._size += len(self._waiting[-1][1])
            while self._size > self._most_waiting:
                self._leave_out()
            self._changed.notify()

    def close(self, wait_s: float = LAST_WAIT_S) -> None:
        """Search what waits still, for as long at most."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(wait_s)
            with self._changed:
                while self._waiting:
                    self._leave_out()
                if self._finder is not None:
                    self._cut_short = True
                    self._finder.kill()
            self._thread.join()
        left_out, self._left_out = self._left_out, 0
        if left_out:
            self._say(
                f"[metrics were not looked for in {left_out} lines, which came faster than they "
                "could be searched]"
            )

    @property
    def metrics(self) -> tuple[MetricValue, ...]:
        """The last value of each metric, in the order of their definitions."""
        with self._changed:
            names = [each.name for each in self._definitions]
            return tuple(self._last[name] for name in names if name in self._last)

    def take_fresh(self) -> list[MetricValue]:
        """Values since the last call."""
        with self._changed:
            fresh, self._fresh = self._fresh, []
        return fresh

    def _leave_out(self) -> None:
        self._size -= len(self._waiting.popleft()[1])
        self._left_out += 1

    def _search(self) -> None:
        batch: list[tuple[int, str]] = []
        try:
            self._start()
            while batch := self._next():
                self._keep(self._answer(batch))
        except (OSError, ValueError) as error:
            with self._changed:
                self._closing = True
                self._waiting.clear()
            if self._cut_short:
                self._left_out += len(batch)
            else:
                self._say(f"[metrics are not looked for any more: their process ended ({error})]")
        finally:
            self._end()

    def _start(self) -> None:
        finder = subprocess.Popen(
            [sys.executable, "-I", "-S", finding.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={},
            encoding="ascii",  # JSON escapes the rest
            start_new_session=True,
        )
        with self._changed:
            self._finder = finder
        assert finder.stdin is not None
        asked = [(each.name, each.regex) for each in self._definitions]
        finder.stdin.write(json.dumps(asked) + "\n")

    def _next(self) -> list[tuple[int, str]]:
        """Waits for lines; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            batch = list(islice(self._waiting, _AT_ONCE))
            for _, line in batch:
                self._waiting.popleft()
                self._size -= len(line)
        return batch

    def _answer(self, batch: Sequence[tuple[int, str]]) -> dict[str, Any]:
        """Raises OSError or ValueError if the process has ended."""
        assert self._finder is not None
        assert self._finder.stdin is not None
        assert self._finder.stdout is not None
        self._finder.stdin.write(json.dumps(batch) + "\n")
        self._finder.stdin.flush()
        answer: dict[str, Any] = json.loads(self._finder.stdout.readline())
        return answer

    def _keep(self, answer: dict[str, Any]) -> None:
        with self._changed:
            for name, value, at in answer["found"]:
                self._last[name] = MetricValue(name, value, at)
                self._fresh.append(self._last[name])
        for line in answer["said"]:
            self._say(line)

    def _end(self) -> None:
        with self._changed:
            finder, self._finder = self._finder, None
        if finder is not None:
            finder.kill()
            finder.wait()
            for pipe in (finder.stdin, finder.stdout):
                assert pipe is not None
                try:
                    pipe.close()
                except OSError:  # what was to be written has no reader any more
                    continue
