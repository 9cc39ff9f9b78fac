"""Runs an embedding model beside the event loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import isfinite
from typing import Protocol

from ridgeline_service.serving.llm.batches import Batches, Worker, metered
from ridgeline_service.serving.llm.errors import DAMAGED, GenerationFailed
from ridgeline_service.serving.llm.watch import watching


def unit(vector: Sequence[float]) -> Sequence[float]:
    """The vector with length 1; one of length 0 as it is."""
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else vector


class EmbeddingSource(Protocol):
    """What is asked of a runner (`ridgeline_backends.encoding.EmbeddingRunner`)."""

    @property
    def dimensions(self) -> int: ...

    def embed(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]: ...


class Embedder:
    """Queues requests in front of a runner, or of several that are alike."""

    def __init__(self, runners: Sequence[EmbeddingSource], *, max_waiting: int) -> None:
        self._runner = runners[0]
        self.queue: Batches[Sequence[int], list[float]] = Batches(
            [Worker(one.embed, metered(one)) for one in runners], len, max_waiting=max_waiting
        )

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return self._runner.dimensions

    async def embed(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """One vector a sequence. Raises Overloaded when too many requests wait already, and
        GenerationFailed for vectors that are not made of finite numbers."""
        vectors = await self.queue.each(token_ids)
        if not all(isfinite(sum(vector)) for vector in vectors):
            raise GenerationFailed("A vector is not made of finite numbers.", hint=DAMAGED)
        watching().embedded_tokens += sum(map(len, token_ids))
        return vectors
