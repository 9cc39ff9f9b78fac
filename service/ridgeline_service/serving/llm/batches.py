"""Runs a model without a scheduler beside the event loop: one thread, small batches, a queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from ridgeline.errors import Overloaded

BATCH = 16
"""Items in one call: a cancelled request stops at the next such border."""

T = TypeVar("T")
R = TypeVar("R")


class Batches(Generic[T, R]):
    """Queues requests in front of ``run``, which gives a result an item and is used by one thread.

    ``length`` tells items of like cost. ``waiting`` and ``finished`` count requests.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        length: Callable[[T], int],
        *,
        max_waiting: int,
    ) -> None:
        self._run = run
        self._length = length
        self._max_waiting = max_waiting
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self.waiting = 0
        self.finished = 0

    def once(self, item: T) -> R:
        """One item on the thread; waits for it."""
        [result] = self._thread.submit(self._run, [item]).result()
        return result

    async def each(self, items: Sequence[T]) -> list[R]:
        """One result an item. Raises Overloaded when too many requests wait already."""
        if self.waiting >= self._max_waiting:
            raise Overloaded(
                f"{self.waiting} requests are already waiting.", hint="Retry in a second."
            )
        self.waiting += 1
        loop = asyncio.get_running_loop()
        order = sorted(range(len(items)), key=lambda place: self._length(items[place]))
        results: dict[int, R] = {}
        try:
            for start in range(0, len(order), BATCH):
                places = order[start : start + BATCH]
                batch = [items[place] for place in places]
                made = await loop.run_in_executor(self._thread, self._run, batch)
                results.update(zip(places, made, strict=True))
        finally:
            self.waiting -= 1
        self.finished += 1
        return [results[place] for place in range(len(items))]

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
