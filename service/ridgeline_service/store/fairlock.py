"""A lock that is handed on in the order in which it was asked for.

A plain lock goes to whoever happens to run when it is released, mostly the thread that has just
had it: fast for that one, and an eternity for the eighth in line.
"""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """A context manager; not reentrant."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._held = False

    def __enter__(self) -> None:
        with self._mutex:
            if not self._held:
                self._held = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False
