"""Requests that may be what ends replicas: a replica broke off while it worked on one.

A digest of each is kept for a minute, in this process alone: what comes again meanwhile, from a
client that retries, is known by it. Knows nothing of who sends.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable

_KEPT_S = 60.0
_MOST = 1024


class Suspects:
    """``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    async def broke(self, endpoint: str, body: bytes, replica_id: str) -> bool:
        """Note that a replica broke off at this request. Returns whether another one has within
        the last minute: several requests that one death ends are not suspected of it."""
        # A body may have a gigabyte.
        digest = await asyncio.to_thread(_digest, endpoint, body)
        now = self._clock()
        since, other = self._seen.pop(digest, (now, replica_id))
        self._seen[digest] = now, replica_id
        while len(self._seen) > _MOST:
            self._seen.popitem(last=False)
        return other != replica_id and now - since < _KEPT_S


def _digest(endpoint: str, body: bytes) -> bytes:
    digest = hashlib.sha256(endpoint.encode() + b"\0")
    digest.update(body)
    return digest.digest()
