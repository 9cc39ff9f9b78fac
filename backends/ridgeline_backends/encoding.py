"""Runners of encoders: whole texts in, vectors or judgements out, without an engine or KV."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


class EmbeddingRunner(ABC):
    """Capability: turns token sequences into vectors."""

    @property
    @abstractmethod
    def max_model_len(self) -> int: ...

    @property
    @abstractmethod
    def dimensions(self) -> int: ...

    @abstractmethod
    def embed(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """One vector per sequence, of unit length unless the model's own files leave it as it is.
        Raises `PromptTooLong` and `InvalidSampling` (empty or out-of-vocabulary input)."""


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Two texts as one sequence. `type_ids` are 0 for tokens of the first, 1 for the second's."""

    token_ids: Sequence[int]
    type_ids: Sequence[int]


class RerankRunner(ABC):
    """Capability: judges how well the second text of a pair answers the first."""

    @property
    @abstractmethod
    def max_model_len(self) -> int: ...

    @abstractmethod
    def score(self, pairs: Sequence[TokenPair]) -> list[float]:
        """One number per pair, higher for better; from 0 to 1 unless the model's own files leave
        it as it is. Raises `PromptTooLong` and `InvalidSampling`, as `EmbeddingRunner.embed`."""
