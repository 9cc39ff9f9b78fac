"""What is added to the logits of single tokens, laid out for whoever adds it at every step.

A request may bias the whole vocabulary, and to lay that out anew for each token would cost more
than the token. Imports no torch: the arrays are read by whatever chooses tokens.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable


class Biases(tuple[tuple[int, float], ...]):
    """Pairs of token and bias. `ids` (int64) and `values` (float32) are the same side by side."""

    ids: array[int]
    values: array[float]

    def __new__(cls, pairs: Iterable[tuple[int, float]] = ()) -> Biases:
        made = super().__new__(cls, pairs)
        made.ids = array("q", [token for token, _ in made])
        made.values = array("f", [bias for _, bias in made])
        return made
