"""Which sequences run in the next step, and how many tokens of each.

By rank: priority first, then arrival. Decoding sequences go before prompts, so that a long prompt
never stalls them; then prompts under way; then the waiting. When blocks run out the running
sequence of the lowest rank gives its blocks back and waits again; so it does, blocks or place, for
one of a higher priority, if the runner is preemptible. Obeys `RunnerLimits` and knows no backend,
no tensor and no time: the same class runs under a virtual clock.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from enum import Enum, auto

from ridgeline_backends.base import Chunk, PagedLayout, RunnerLimits, Step
from ridgeline_backends.engine.block_manager import BlockManager
from ridgeline_backends.engine.queue import Queue, rank
from ridgeline_backends.engine.sequence import Sequence
from ridgeline_backends.engine.speculation import Speculation

_SCORED_AT_ONCE = 64
"""Tokens of a scored prompt in one step: each has a row of logits."""


class _Phase(Enum):
    MIXED = auto()
    PREFILL = auto()
    DECODE = auto()


class Scheduler:
    """Holds every live sequence, in `waiting` (no blocks) or in `running`, both by rank.

    `speculation` gives decoding sequences guesses to check along with their newest token.
    """

    def __init__(self, limits: RunnerLimits, speculation: Speculation | None = None) -> None:
        self.limits = limits
        self.waiting = Queue()
        self.running: list[Sequence] = []
        self._speculation = speculation if limits.draft_tokens else None
        self.preemptions = 0
        self.blocks = BlockManager.of(limits)

    @property
    def max_sequence_len(self) -> int:
        """The most tokens one sequence may ever have and still be sure to finish alone."""
        limits, layout = self.limits, self.limits.kv_layout
        if isinstance(layout, PagedLayout):
            longest = min(limits.max_model_len, layout.num_blocks * layout.block_size)
            # After a preemption everything generated so far is one prefill.
            return longest if limits.chunked_prefill else min(longest, limits.chunk_limit)
        return min(limits.max_model_len, layout.slot_length)

    @property
    def max_prompt_len(self) -> int:
        """The longest prompt that leaves room for one new token."""
        longest = self.max_sequence_len - 1
        return longest if self.limits.chunked_prefill else min(longest, self.limits.chunk_limit)

    def add(self, seq: Sequence) -> None:
        self.waiting.add(seq)

    def remove(self, seq: Sequence) -> None:
        """Forget a sequence that finished, failed or was cancelled, and free its blocks."""
        if seq.blocks:
            self.running.remove(seq)
            self.blocks.release(seq)
        else:
            self.waiting.remove(seq)
        if self._speculation is not None:
            self._speculation.forget(seq)

    def sequences(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.waiting

    def schedule(self) -> Step:
        """The next step; an empty one if nothing can run, which is only if nothing is live."""
        self._make_way()
        if self.limits.mixed_phases:
            return self._plan(_Phase.MIXED)
        step = self._plan(_Phase.PREFILL)
        return step if step.chunks else self._plan(_Phase.DECODE)

    def computed(self, seq: Sequence, chunk: Chunk, accepted: int = 0) -> None:
        """A step has run: the KV of the chunk is in memory, that of `accepted` guesses with it."""
        seq.computed = chunk.start + len(chunk.tokens) - chunk.draft + accepted
        self.blocks.commit(seq)

    def steady_steps(self) -> int:
        """How many steps from here on are sure to decode one token of every running sequence and
        nothing else, whoever else of no higher priority comes behind those that wait now: until
        one has all its tokens or needs another block. 0: the next step is not known to."""
        waiting, running = self.waiting, self.running
        if self._speculation is not None or not running:
            return 0
        if waiting:
            if waiting.first.rank[0] < running[-1].rank[0]:
                return 0
            full = len(running) >= self.limits.batch_limit
            if not full and self.blocks.fits(waiting.first):
                return 0
        size, least = self.blocks.block_size, self.limits.max_model_len
        for seq in running:
            length = len(seq.tokens)
            if seq.computed != length - 1:
                return 0
            room = len(seq.blocks) * size - length + 1
            left = seq.max_tokens - length + seq.prompt_len
            least = min(least, room, left)
        return least

    def advance(self, steps: int) -> None:
        """Take `steps` steps of decoding at once, of at most `steady_steps`, without a runner: what
        is chosen is token 0. For whoever wants to know when, not what."""
        chosen = [0] * steps
        for seq in self.running:
            seq.tokens += chosen
            seq.computed += steps
            self.blocks.commit(seq)

    def check_integrity(self) -> None:
        """Raise `AssertionError` if a block leaked or a waiting sequence holds one."""
        assert all(not seq.blocks for seq in self.waiting), "a waiting sequence holds blocks"
        assert all(seq.blocks for seq in self.running), "a running sequence holds no block"
        assert len(self.running) <= self.limits.batch_limit, "too many sequences run"
        for queue in (self.running, list(self.waiting)):
            assert queue == sorted(queue, key=rank), "sequences out of order"
        assert self.waiting.tokens == sum(len(seq.tokens) for seq in self.waiting), "miscounted"
        self.blocks.check_integrity(self.running)

    def _make_way(self) -> None:
        """Running sequences of a lower priority make way for the first that waits."""
        if not self.limits.preemptible:
            return
        while self.waiting and self.running:
            first, last = self.waiting.first, self.running[-1]
            if first.rank[0] >= last.rank[0]:
                return
            if len(self.running) < self.limits.batch_limit and self.blocks.fits(first):
                return
            self._preempt()

    def _plan(self, phase: _Phase) -> Step:
        chunks: list[Chunk] = []
        budget = self.limits.max_tokens
        preemptions = self.preemptions
        self.blocks.forget_promises()
        prompts = [seq for seq in self.running if not seq.decoding]
        if phase is not _Phase.PREFILL:
            chunks = self._decodes(budget)
            budget -= sum([len(chunk.tokens) for chunk in chunks])
        if phase is not _Phase.DECODE:
            for seq in prompts:
                if seq.blocks:  # else it gave them up just now
                    budget -= self._prefill(seq, budget, chunks)
            # What was preempted is not to come back in the same step.
            if preemptions == self.preemptions:
                self._admit(phase, budget, chunks)
        return Step(tuple(chunks))

    def _decodes(self, budget: int) -> list[Chunk]:
        """A chunk for each sequence that decodes; a step has room for one token of each."""
        ready: list[Sequence] = []
        for seq in tuple(self.running):
            # One that was preempted for an elder does not decode any more.
            while seq.decoding:
                if self.blocks.grow(seq):
                    ready.append(seq)
                    break
                self._preempt()
        if self._speculation is None:
            return [seq.chunk(1) for seq in ready]
        most = min(self.limits.draft_tokens, self.limits.chunk_limit - 1)
        guesses = self._speculation.guesses(ready, budget - len(ready), most)
        return [self._guessing_chunk(seq, guesses.get(seq.id, ())) for seq in ready]

    def _guessing_chunk(self, seq: Sequence, guesses: tuple[int, ...]) -> Chunk:
        # Nobody is preempted for a guess.
        if guesses and not self.blocks.grow(seq, len(guesses)):
            guesses = guesses[: len(seq.blocks) * self.blocks.block_size - len(seq.tokens)]
        return seq.chunk(1, guesses)

    def _admit(self, phase: _Phase, budget: int, chunks: list[Chunk]) -> None:
        """Let sequences in while there is room for them, and start on their prompts."""
        while (
            self.waiting
            and len(self.running) < self.limits.batch_limit
            and self._fits(self.waiting.first, budget)
            and self.blocks.admit(self.waiting.first)
        ):
            seq = self.waiting.pop()
            insort(self.running, seq, key=rank)
            # With all but one token in a shared prefix it is a decode already.
            if phase is _Phase.MIXED or not seq.decoding:
                budget -= self._prefill(seq, budget, chunks)

    def _fits(self, seq: Sequence, budget: int) -> bool:
        if self.limits.chunked_prefill:
            return budget > 0
        # Judged by the whole of it: what a shared prefix will save is not known yet.
        return self.limits.padded(seq.remaining) <= budget

    def _prefill(self, seq: Sequence, budget: int, chunks: list[Chunk]) -> int:
        """Add a chunk of `seq` if the budget allows; return what it costs."""
        chunked = self.limits.chunked_prefill
        count = min(seq.remaining, budget, self.limits.chunk_limit)
        if chunked and seq.scores_prompt:
            count = min(count, _SCORED_AT_ONCE)
        while count and self.limits.padded(count) > budget:
            # The largest compiled size that still fits, or nothing.
            count = max((b for b in self.limits.sequence_buckets if b <= budget), default=0)
        if count <= 0 or (count < seq.remaining and not chunked):
            return 0
        self.blocks.promise(seq, count)
        chunks.append(seq.chunk(count))
        return self.limits.padded(count)

    def _preempt(self) -> None:
        victim = self.running.pop()
        self.blocks.release(victim)
        self.waiting.add(victim)
        self.preemptions += 1
