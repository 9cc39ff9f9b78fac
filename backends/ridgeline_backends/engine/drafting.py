"""Guessing the next tokens of a sequence: what a drafter is, and one that looks them up.

A guess is checked by the model in the same step that computes the newest token, so a wrong one
costs a row of that step and never changes the text. Knows neither model nor time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from ridgeline_backends.engine.sequence import Sequence

_CANDIDATES = 8
"""Earlier places that are looked at before the longest match is taken."""


@dataclass(frozen=True, slots=True)
class Drafts:
    """Guesses by sequence id, and the seconds on a device that they took."""

    tokens: dict[str, tuple[int, ...]]
    seconds: float = 0.0


class Drafter(ABC):
    """Used by the engine's thread."""

    free: bool
    """Whether guessing costs next to nothing, so that it may be tried out without a use for it."""

    @abstractmethod
    def propose(self, wanted: Tokens[tuple[Sequence, int]]) -> Drafts:
        """At most so many tokens after the newest of each sequence. One may be left out."""

    @abstractmethod
    def forget(self, seq: Sequence) -> None:
        """The sequence has ended, or gave up its place."""


class PromptLookup(Drafter):
    """Guesses that what followed the latest tokens before follows them again.

    The latest `shortest` tokens are looked up among all before them; of the places where they
    stand, the one with the longest common past is taken, up to `longest` tokens, the latest of
    several. (Saxena, Prompt Lookup Decoding, 2023.)
    """

    free = True

    def __init__(self, *, shortest: int = 2, longest: int = 4) -> None:
        if not 1 <= shortest <= longest:
            raise ValueError(f"shortest {shortest} must be from 1 to longest, {longest}")
        self._shortest = shortest
        self._longest = longest
        self._indexes: dict[str, _Index] = {}

    def propose(self, wanted: Tokens[tuple[Sequence, int]]) -> Drafts:
        found: dict[str, tuple[int, ...]] = {}
        for seq, count in wanted:
            index = self._indexes.get(seq.id)
            if index is None:
                index = self._indexes[seq.id] = _Index(self._shortest)
            place = index.find(seq.tokens, self._longest)
            if place is not None:
                found[seq.id] = _continued(seq.tokens, place, count)
        return Drafts(found)

    def forget(self, seq: Sequence) -> None:
        self._indexes.pop(seq.id, None)


@dataclass(slots=True)
class _Index:
    """Where each run of `size` tokens ended, latest first: `latest` by run, then along `before`,
    which has an entry for every place. A place is the number of tokens up to the end of the run."""

    size: int
    latest: dict[tuple[int, ...], int] = field(default_factory=dict)
    before: list[int] = field(default_factory=list)

    def find(self, tokens: list[int], longest: int) -> int | None:
        """The place behind the best match for the end of `tokens`, before that end."""
        end = len(tokens)
        size, latest, before = self.size, self.latest, self.before
        if end <= size:
            return None
        for place in range(len(before) + size, end):
            run = tuple(tokens[place - size : place])
            before.append(latest.get(run, 0))
            latest[run] = place
        best, best_length = None, 0
        place = latest.get(tuple(tokens[-size:]), 0)
        for _ in range(_CANDIDATES):
            if not place:
                break
            length = size
            while (
                length < min(longest, place) and tokens[place - 1 - length] == tokens[-1 - length]
            ):
                length += 1
            if length > best_length:
                best, best_length = place, length
            if length >= longest:
                break
            place = before[place - size]
        return best


def _continued(tokens: list[int], place: int, count: int) -> tuple[int, ...]:
    """`count` tokens from `place` on; beyond the end, the guess itself is what goes on."""
    guess = tokens[place : place + count]
    period = len(tokens) - place
    while len(guess) < count:
        guess.append(guess[len(guess) - period])
    return tuple(guess)
