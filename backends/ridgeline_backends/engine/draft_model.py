"""Guesses by a smaller model of the same vocabulary, one step of it for each guess.

The draft model keeps KV memory of its own and follows each sequence it is asked about. It chooses
with the sequence's own sample requests: given equal random numbers two models agree most often.
Knows no tensor; times come from the runner.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass, replace

from ridgeline_backends.base import Chunk, ModelRunner, Step
from ridgeline_backends.engine.api import NO_TOKEN
from ridgeline_backends.engine.block_manager import BlockManager
from ridgeline_backends.engine.drafting import Drafter, Drafts
from ridgeline_backends.engine.sequence import Sequence


@dataclass(slots=True, eq=False)
class _Follower:
    """`own` has the tokens of `seq` in the draft model's memory, and guesses after the first
    `known` of them."""

    seq: Sequence
    own: Sequence
    known: int = 0
    wanted: int = 0

    def catch_up(self) -> None:
        """Take over what was generated. Guesses that were wrong are to be computed anew."""
        true, own = self.seq.tokens, self.own
        right = self.known
        while right < min(len(own.tokens), len(true)) and own.tokens[right] == true[right]:
            right += 1
        own.computed = min(own.computed, right, len(true) - 1)
        own.tokens[self.known :] = true[self.known :]
        self.known = len(true)


class DraftModel(Drafter):
    """Used by the thread of the engine it guesses for. Closes nothing."""

    free = False

    def __init__(self, runner: ModelRunner) -> None:
        limits = runner.limits
        if not (limits.mixed_phases and limits.chunked_prefill and limits.sampling == "device"):
            raise ValueError("a draft model's runner has to mix phases, cut prompts and sample")
        self._runner = runner
        self._limits = limits
        self._blocks = BlockManager.of(limits)
        # The front was asked about longest ago.
        self._followers: dict[str, _Follower] = {}

    def propose(self, wanted: Items[tuple[Sequence, int]]) -> Drafts:
        """A sequence whose prompt the draft model has not read to its end gets nothing yet."""
        followers = [
            self._follow(seq, count)
            for seq, count in wanted[: self._limits.batch_limit]
            if len(seq.tokens) + count <= self._limits.max_model_len
        ]
        guesses: dict[str, list[int]] = {follower.seq.id: [] for follower in followers}
        seconds = 0.0
        work = self._first_chunks([f for f in followers if self._has_room(f, guesses)])
        while work:
            result = self._runner.execute(Step(tuple(chunk for _, chunk in work)))
            seconds += result.device_time.seconds
            tokens = iter(result.tokens)
            going: list[_Follower] = []
            for follower, chunk in work:
                own = follower.own
                own.computed += len(chunk.tokens)
                if own.computed <= follower.known:
                    self._blocks.commit(own)
                guess = NO_TOKEN if chunk.sample is None else next(tokens).token_id
                if guess != NO_TOKEN:
                    own.tokens.append(guess)
                    guesses[own.id].append(own.tokens[-1])
                    if len(guesses[own.id]) < follower.wanted and self._blocks.grow(own):
                        going.append(follower)
            work = [(follower, follower.own.chunk(1)) for follower in going]
        return Drafts({name: tuple(found) for name, found in guesses.items() if found}, seconds)

    def forget(self, seq: Sequence) -> None:
        follower = self._followers.pop(seq.id, None)
        if follower is not None:
            self._blocks.release(follower.own)

    def check_integrity(self) -> None:
        """Raise `AssertionError` if a block leaked."""
        self._blocks.check_integrity(follower.own for follower in self._followers.values())

    def _follow(self, seq: Sequence, count: int) -> _Follower:
        follower = self._followers.pop(seq.id, None)
        if follower is None:
            own = Sequence(
                id=seq.id,
                tokens=list(seq.tokens),
                params=replace(seq.params, logprobs=None, prompt_logprobs=None),
                seed=seq.seed,
                max_tokens=seq.max_tokens,
                stop_tokens=seq.stop_tokens,
            )
            own.prompt_len = seq.prompt_len
            follower = _Follower(seq, own)
        self._followers[seq.id] = follower
        follower.wanted = count
        follower.catch_up()
        return follower

    def _has_room(self, follower: _Follower, asked: dict[str, list[int]]) -> bool:
        """Memory for it, taken from sequences that nobody asks about if need be."""
        own = follower.own
        while not (self._blocks.grow(own) if own.blocks else self._blocks.admit(own)):
            idle = next(
                (f.own for f in self._followers.values() if f.own.blocks and f.seq.id not in asked),
                None,
            )
            if idle is None:
                return False
            self._blocks.release(idle)
        return True

    def _first_chunks(self, followers: Items[_Follower]) -> list[tuple[_Follower, Chunk]]:
        """What each has to compute before it can guess, as far as one step holds it."""
        work: list[tuple[_Follower, Chunk]] = []
        budget = self._limits.max_tokens
        for follower in followers:
            count = min(follower.own.remaining, budget, self._limits.chunk_limit)
            if count > 0:
                work.append((follower, follower.own.chunk(count)))
                budget -= count
        return work
