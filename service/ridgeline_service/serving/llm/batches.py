"""Runs a model without a scheduler beside the event loop: small batches, a queue, a thread for each
copy of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from ridgeline.errors import Overloaded
from ridgeline_backends.device_time import DeviceTime, MeteredHardware
from ridgeline_service.serving.llm.watch import EncodedTimes, watching

BATCH = 16
"""Items in one call: a cancelled request stops at the next such border."""

_NO_TIME = DeviceTime(seconds=0.0)

T = TypeVar("T")
R = TypeVar("R")


class Worker(Generic[T, R]):
    """A copy of a model with a thread: ``run`` gives a result an item, on ``hardware`` where that
    is simulated. ``requests`` are those that it has in hand."""

    def __init__(
        self, run: Callable[[Sequence[T]], Sequence[R]], hardware: MeteredHardware | None = None
    ) -> None:
        self.hardware = hardware
        self.requests = 0
        self._run = run
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")

    @property
    def spent(self) -> DeviceTime:
        return _NO_TIME if self.hardware is None else self.hardware.spent

    def submit(self, batch: Sequence[T]) -> Future[tuple[Sequence[R], DeviceTime, DeviceTime]]:
        """Results, and what the device had spent before and after."""
        return self._thread.submit(self._timed, batch)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _timed(self, batch: Sequence[T]) -> tuple[Sequence[R], DeviceTime, DeviceTime]:
        """On the thread, where nobody else's calls come between."""
        begun = self.spent
        return self._run(batch), begun, self.spent


class Batches(Generic[T, R]):
    """Queues requests in front of ``workers``, which are alike: each goes to the one with the
    fewest.

    ``length`` tells items of like cost. ``waiting`` and ``finished`` count requests. The request's
    watch is told what its calls took of simulated hardware.
    """

    def __init__(
        self, workers: Sequence[Worker[T, R]], length: Callable[[T], int], *, max_waiting: int
    ) -> None:
        self._workers = tuple(workers)
        self._length = length
        self._max_waiting = max_waiting
        self.waiting = 0
        self.finished = 0

    def warm_up(self, item: T) -> list[R]:
        """One item through each worker; waits for them, and gives their results."""
        return [worker.submit([item]).result()[0][0] for worker in self._workers]

    async def each(self, items: Sequence[T]) -> list[R]:
        """One result an item. Raises Overloaded when too many requests wait already."""
        if self.waiting >= self._max_waiting:
            raise Overloaded(
                f"{self.waiting} requests are already waiting.", hint="Retry in a second."
            )
        worker = min(self._workers, key=lambda one: one.requests)
        self.waiting += 1
        worker.requests += 1
        order = sorted(range(len(items)), key=lambda place: self._length(items[place]))
        results: dict[int, R] = {}
        began = ended = worker.spent
        own_seconds = 0.0
        try:
            for start in range(0, len(order), BATCH):
                places = order[start : start + BATCH]
                batch = [items[place] for place in places]
                made, begun, ended = await asyncio.wrap_future(worker.submit(batch))
                results.update(zip(places, made, strict=True))
                own_seconds += ended.seconds - begun.seconds
        finally:
            self.waiting -= 1
            worker.requests -= 1
        self.finished += 1
        if worker.hardware is not None:
            device = worker.hardware.simulates
            watching().encoded = EncodedTimes(device, ended - began, own_seconds)
        return [results[place] for place in range(len(items))]

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


def metered(runner: object) -> MeteredHardware | None:
    """The simulated device of a runner that stands for one."""
    return runner if isinstance(runner, MeteredHardware) else None
