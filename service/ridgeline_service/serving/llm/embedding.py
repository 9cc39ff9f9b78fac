"""Runs an embedding model beside the event loop: one thread, small batches, a bounded queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from ridgeline.errors import Overloaded
from ridgeline_service.serving.llm.watch import watching

BATCH = 16
"""Sequences in one call of the runner: a cancelled request stops at the next such border."""


class EmbeddingSource(Protocol):
    """What is asked of a runner (`ridgeline_backends.base.EmbeddingRunner`)."""

    @property
    def dimensions(self) -> int: ...

    def embed(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]: ...


class Embedder:
    """Queues requests in front of a runner that is used by one thread."""

    def __init__(self, runner: EmbeddingSource, *, max_waiting: int) -> None:
        self._runner = runner
        self._max_waiting = max_waiting
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self.waiting = 0
        self.finished = 0

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return self._runner.dimensions

    def warm_up(self, token_ids: Sequence[int]) -> None:
        """One sequence through the runner, on its thread; waits for it."""
        self._thread.submit(self._runner.embed, [token_ids]).result()

    async def embed(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """One vector a sequence. Raises Overloaded when too many requests wait already."""
        if self.waiting >= self._max_waiting:
            raise Overloaded(
                f"{self.waiting} requests are already waiting.", hint="Retry in a second."
            )
        self.waiting += 1
        loop = asyncio.get_running_loop()
        # Sequences of like length share a batch, so that little of it is padding.
        order = sorted(range(len(token_ids)), key=lambda place: len(token_ids[place]))
        vectors: dict[int, list[float]] = {}
        try:
            for start in range(0, len(order), BATCH):
                places = order[start : start + BATCH]
                batch = [token_ids[place] for place in places]
                made = await loop.run_in_executor(self._thread, self._runner.embed, batch)
                vectors.update(zip(places, made, strict=True))
        finally:
            self.waiting -= 1
        self.finished += 1
        watching().embedded_tokens += sum(map(len, token_ids))
        return [vectors[place] for place in range(len(token_ids))]

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
