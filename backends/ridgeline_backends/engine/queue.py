"""The sequences that wait, in order of rank. Knows neither blocks nor time."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from ridgeline_backends.engine.sequence import Sequence


def rank(seq: Sequence) -> tuple[int, int]:
    return seq.rank


class Queue:
    """First by priority, then by arrival. `tokens` are those of all that wait."""

    def __init__(self) -> None:
        self._sequences: list[Sequence] = []
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    @property
    def first(self) -> Sequence:
        return self._sequences[0]

    def add(self, seq: Sequence) -> None:
        insort(self._sequences, seq, key=rank)
        self.tokens += len(seq.tokens)

    def pop(self) -> Sequence:
        """Take out the first."""
        seq = self._sequences.pop(0)
        self.tokens -= len(seq.tokens)
        return seq

    def remove(self, seq: Sequence) -> None:
        self._sequences.remove(seq)
        self.tokens -= len(seq.tokens)
