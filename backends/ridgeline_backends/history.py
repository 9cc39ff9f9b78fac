"""What a sequence has said so far, counted, for penalties on repetition.

Kept up to date token by token, because counting a long sequence anew at every step would cost more
than the step. Imports no torch: the arrays are read by whatever chooses tokens.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass


class TokenHistory:
    """The distinct tokens of one sequence, with how often each was generated.

    `ids` (int64) and `counts` (float64) run in parallel; a token of the prompt alone counts 0.
    """

    __slots__ = ("_places", "counts", "ids")

    def __init__(self, prompt: Iterable[int]) -> None:
        self.ids = array("q", dict.fromkeys(prompt))
        self.counts = array("d", bytes(8 * len(self.ids)))
        self._places = {token: place for place, token in enumerate(self.ids)}

    def add(self, token: int) -> None:
        """Count a generated token."""
        place = self._places.get(token)
        if place is None:
            self._places[token] = len(self.ids)
            self.ids.append(token)
            self.counts.append(1.0)
        else:
            self.counts[place] += 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalties:
    """How a sequence's own tokens lose likelihood.

    `repetition` divides positive logits of every token of prompt and answer and multiplies
    negative ones (1: off; CTRL, arXiv 1909.05858). `presence` is taken off a generated token once,
    `frequency` for each time it came (0: off; the OpenAI API).
    """

    history: TokenHistory
    presence: float = 0.0
    frequency: float = 0.0
    repetition: float = 1.0
