"""Runs a model without a scheduler beside the event loop: one thread, small batches, a queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from ridgeline.errors import Overloaded
from ridgeline_backends.device_time import DeviceTime, MeteredHardware
from ridgeline_service.serving.llm.watch import EncodedTimes, watching

BATCH = 16
"""Items in one call: a cancelled request stops at the next such border."""

_NO_TIME = DeviceTime(seconds=0.0)

T = TypeVar("T")
R = TypeVar("R")


class Batches(Generic[T, R]):
    """Queues requests in front of ``run``, which gives a result an item and is used by one thread.

    ``length`` tells items of like cost. ``waiting`` and ``finished`` count requests. The request's
    watch is told what its calls took of ``hardware``, where that is simulated.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        length: Callable[[T], int],
        *,
        max_waiting: int,
        hardware: MeteredHardware | None = None,
    ) -> None:
        self._run = run
        self._length = length
        self._max_waiting = max_waiting
        self._hardware = hardware
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
        began = ended = self._spent()
        own_seconds = 0.0
        try:
            for start in range(0, len(order), BATCH):
                places = order[start : start + BATCH]
                batch = [items[place] for place in places]
                made, begun, ended = await loop.run_in_executor(self._thread, self._timed, batch)
                results.update(zip(places, made, strict=True))
                own_seconds += ended.seconds - begun.seconds
        finally:
            self.waiting -= 1
        self.finished += 1
        if self._hardware is not None:
            device = self._hardware.simulates
            watching().encoded = EncodedTimes(device, ended - began, own_seconds)
        return [results[place] for place in range(len(items))]

    def _timed(self, batch: Sequence[T]) -> tuple[Sequence[R], DeviceTime, DeviceTime]:
        """On the thread, where nobody else's calls come between."""
        begun = self._spent()
        return self._run(batch), begun, self._spent()

    def _spent(self) -> DeviceTime:
        return _NO_TIME if self._hardware is None else self._hardware.spent

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def metered(runner: object) -> MeteredHardware | None:
    """The simulated device of a runner that stands for one."""
    return runner if isinstance(runner, MeteredHardware) else None
