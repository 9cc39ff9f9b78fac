"""Tells of the ends of processes that are not one's own children, at once and without asking again
and again."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Ends:
    """Thread-safe. One thread waits for all, from the first one on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, tuple[int, Callable[[], None]]] = {}
        self._fds: dict[int, int] = {}
        self._poll: select.epoll | None = None

    def tell(self, pid: int, ended: Callable[[], None]) -> bool:
        """Call ``ended`` once, on a thread of this object's, when the process is gone; a process
        that is watched already stays so. False where this system cannot tell, or it is gone."""
        with self._lock:
            if pid in self._fds:
                return True
            try:
                fd = os.pidfd_open(pid)
            except OSError:
                return False
            self._fds[pid] = fd
            self._watched[fd] = (pid, ended)
            if self._poll is None:
                self._poll = select.epoll()
                threading.Thread(target=self._wait, name="ends", daemon=True).start()
            self._poll.register(fd, select.EPOLLIN)
            return True

    def _wait(self) -> None:
        assert self._poll is not None
        while True:
            for fd, _ in self._poll.poll():
                with self._lock:
                    pid, ended = self._watched.pop(fd)
                    del self._fds[pid]
                    self._poll.unregister(fd)
                    os.close(fd)
                try:
                    ended()
                except Exception:  # one listener's bug must not keep the others from being told
                    log.exception("the end of process %s could not be passed on", pid)
