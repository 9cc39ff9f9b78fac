"""Runs a model without a scheduler beside the event loop: small batches, a queue, a thread for each
copy of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from ridgeline.errors import Overloaded
from ridgeline_backends.device_time import DeviceTime, MeteredHardware
from ridgeline_service.serving.llm.watch import EncodedTimes, watching

BATCH = 16
"""Items in one call: a cancelled request stops at the next such border."""

_NO_TIME = DeviceTime(seconds=0.0)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class _Made(Generic[R]):
    """A batch's results, what it took, and the devices' time at its end."""

    results: Sequence[R]
    taken: DeviceTime
    ended: DeviceTime


@dataclass(frozen=True)
class Worker(Generic[T, R]):
    """A copy of a model: ``run`` gives a result an item, on ``hardware`` where that is simulated.
    Used by one thread at a time."""

    run: Callable[[Sequence[T]], Sequence[R]]
    hardware: MeteredHardware | None = None

    @property
    def spent(self) -> DeviceTime:
        return _NO_TIME if self.hardware is None else self.hardware.spent


class Batches(Generic[T, R]):
    """Queues requests in front of ``workers``, which are alike: who is free takes the next batch.

    ``length`` tells items of like cost. ``waiting`` and ``finished`` count requests. The request's
    watch is told what its calls took of simulated hardware.
    """

    def __init__(
        self, workers: Sequence[Worker[T, R]], length: Callable[[T], int], *, max_waiting: int
    ) -> None:
        self._workers = tuple(workers)
        self._length = length
        self._max_waiting = max_waiting
        self._threads = ThreadPoolExecutor(len(workers), thread_name_prefix="batches")
        self._free: SimpleQueue[Worker[T, R]] = SimpleQueue()
        for worker in workers:
            self._free.put(worker)
        self.waiting = 0
        self.finished = 0

    def once(self, item: T) -> R:
        """One item on a thread; waits for it."""
        return self._threads.submit(self._timed, [item]).result().results[0]

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
        began = ended = self._passed()
        own = _NO_TIME
        try:
            for start in range(0, len(order), BATCH):
                places = order[start : start + BATCH]
                batch = [items[place] for place in places]
                made = await loop.run_in_executor(self._threads, self._timed, batch)
                results.update(zip(places, made.results, strict=True))
                own, ended = own + made.taken, made.ended
        finally:
            self.waiting -= 1
        self.finished += 1
        hardware = self._workers[0].hardware
        if hardware is not None:
            # Alone on one of several copies, a call takes longer than passes on their average.
            total = max(own, ended - began, key=lambda time: time.seconds)
            watching().encoded = EncodedTimes(hardware.simulates, total, own.seconds)
        return [results[place] for place in range(len(items))]

    def _timed(self, batch: Sequence[T]) -> _Made[R]:
        worker = self._free.get()  # there is one for each thread
        try:
            begun = worker.spent
            results = worker.run(batch)
            return _Made(results, worker.spent - begun, self._passed())
        finally:
            self._free.put(worker)

    def _passed(self) -> DeviceTime:
        """Time of the devices: what each has spent, on average."""
        times = [worker.spent for worker in self._workers]
        return sum(times[1:], times[0]).shared(len(times))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def metered(runner: object) -> MeteredHardware | None:
    """The simulated device of a runner that stands for one."""
    return runner if isinstance(runner, MeteredHardware) else None
