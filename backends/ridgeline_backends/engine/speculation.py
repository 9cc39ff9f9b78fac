"""Whether to guess ahead, and how far: as far as it is expected to pay.

A guess that is right saves a step, one that is wrong costs a row of one. So two things are
measured: how often the guesses for each sequence are right, and what a row costs beside the rest of
a step. While few sequences run, a step reads the weights whatever its rows are, and rows are cheap;
in a large batch they are not. Knows neither model nor clock: times come with the steps.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence as Items
from dataclasses import dataclass

from ridgeline_backends.base import Step
from ridgeline_backends.engine.costs import StepCosts, best_length
from ridgeline_backends.engine.drafting import Drafter
from ridgeline_backends.engine.sequence import Sequence

log = logging.getLogger(__name__)

_START = 0.4
"""How often the first guesses of a sequence are taken to be right."""

_WEIGHT = 0.12
"""What one guess counts in that average."""

_BEST = 0.95
"""The best that can be hoped for: if that does not pay, nothing does."""

_RETRY_TOKENS, _TRIAL = 64, 3
"""After so many tokens a drafter that is not free is tried again, with so many guesses, where it
did not pay."""


@dataclass(slots=True)
class _Record:
    """One sequence: how often guesses were right, the latest guess, and the length at which a
    drafter that is not free was tried last."""

    right: float = _START
    guess: tuple[int, ...] = ()
    tried: int = 0

    def learn(self, right: bool) -> None:
        self.right += _WEIGHT * (right - self.right)


class Speculation:
    """Guesses of one drafter for the sequences of one engine, at most `most` for each.

    `always`: guess whether it pays or not, as far as there is room.
    """

    def __init__(
        self,
        drafter: Drafter,
        *,
        most: int = 8,
        always: bool = False,
    ) -> None:
        if most < 1:
            raise ValueError(f"most must be at least 1, not {most}")
        self._drafter = drafter
        self._most = most
        self._always = always
        self._costs = StepCosts()
        self._records: dict[str, _Record] = {}
        self._tried = False
        self._broken = False

    def guesses(
        self, decoding: Items[Sequence], room: int, limit: int
    ) -> dict[str, tuple[int, ...]]:
        """Guesses to check in the next step, by sequence id: `room` in all, `limit` for each.

        `decoding` are the sequences in it, each with its newest token still to be computed.
        """
        lengths = self._lengths(decoding, min(limit, self._most))
        if not lengths:
            return {}
        try:
            # A free drafter is asked for guesses that will not be used, too: they show how often
            # it would have been right.
            drafts = self._drafter.propose([(seq, max(1, length)) for seq, length in lengths])
        except Exception:  # a draft model that fails must not take the sequences with it
            log.exception("The drafter failed; going on without guesses")
            self._broken = True
            return {}
        self._costs.drafted(sum(map(len, drafts.tokens.values())), drafts.seconds)
        used: dict[str, tuple[int, ...]] = {}
        for seq, length in lengths:
            guess = drafts.tokens.get(seq.id, ())
            self._records[seq.id].guess = guess
            length = min(length, len(guess), room)
            if length > 0:
                used[seq.id] = guess[:length]
                room -= length
        return used

    def learn(self, seq: Sequence, kept: int, drafted: int) -> None:
        """A sequence got `kept` new tokens; the first of `drafted` guesses were among them."""
        record = self._records.get(seq.id)
        if record is None or not record.guess:
            return
        if drafted:
            for place in range(min(kept, drafted)):
                record.learn(place < kept - 1)
        else:
            record.learn(record.guess[0] == seq.tokens[-kept])
        record.guess = ()

    def measured(self, step: Step, seconds: float) -> None:
        """A step took that long."""
        rows = 0
        for chunk in step.chunks:
            if len(chunk.tokens) != chunk.draft + 1:
                return
            rows += chunk.draft + 1
        self._costs.step(rows, seconds)

    def forget(self, seq: Sequence) -> None:
        """The sequence has ended."""
        self._records.pop(seq.id, None)
        self._drafter.forget(seq)

    def _lengths(self, decoding: Items[Sequence], most: int) -> list[tuple[Sequence, int]]:
        """How many guesses to check for which sequences; 0: only to see whether one is right."""
        if self._broken or most < 1 or not decoding:
            return []
        costs = self._costs.of(len(decoding))
        if not self._always and costs and not best_length(_BEST, *costs, most):
            return []
        lengths = []
        # What a guess costs is not known: one sequence finds out, every other step, for it takes
        # steps with guesses and steps without.
        self._tried = trying = costs is None and not self._tried
        for seq in decoding:
            # The token after the last guess is new as well.
            room = min(most, seq.max_tokens - seq.generated - 1)
            if room < 1 or not seq.may_guess:
                continue
            record = self._records.get(seq.id)
            if record is None:
                record = self._records[seq.id] = _Record(tried=len(seq.tokens))
            if self._always:
                length = room
            elif costs is not None:
                length = best_length(record.right, *costs, room)
            else:
                length, trying = room if trying else 0, False
            if not length and not self._drafter.free:
                if len(seq.tokens) < record.tried + _RETRY_TOKENS:
                    continue
                record.tried = len(seq.tokens)
                length = min(room, _TRIAL)
            lengths.append((seq, length))
        return lengths
