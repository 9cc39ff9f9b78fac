"""Time, so that tests never wait for it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What waits need of time. Seconds everywhere."""

    def wall(self) -> float:
        """Seconds since the epoch: for names and log lines."""

    def monotonic(self) -> float:
        """Seconds since some moment, never going back: for timeouts."""

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
