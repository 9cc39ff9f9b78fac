"""HTTP connections that end when their reader stalls.

A reader that takes nothing is not waited for without end: what is written for it holds memory here,
a slot on a replica and a sequence's place behind it. uvicorn pauses the application when more than
64 KiB wait to be sent; a pause of ``stall_s`` ends the connection, at once and without a farewell,
and the application learns of it as of any client that left. So a reader must take about 64 KiB in
``stall_s`` while that much waits for it, and one that keeps up is never asked for anything.
"""

from __future__ import annotations

import asyncio
import logging

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

STALL_S = 60.0


def ending_stalls(stall_s: float = STALL_S) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with that limit, for ``uvicorn.Config(http=...)``."""

    class Connection(HttpToolsProtocol):
        _stalled: asyncio.TimerHandle | None = None

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stalled = self.loop.call_later(stall_s, self._give_up)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._at_ease()

        def connection_lost(self, exc: Exception | None) -> None:
            self._at_ease()
            super().connection_lost(exc)

        def _give_up(self) -> None:
            log.warning("A reader took nothing for %g s: its connection is closed", stall_s)
            # Not close(), which waits until all is sent.
            self.transport.abort()

        def _at_ease(self) -> None:
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None

    return Connection
