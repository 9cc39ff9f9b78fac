"""Which sequences run in the next step, and how many tokens of each.

First come, first served. Decoding sequences go first, so that a long prompt never stalls them; then
prompts under way; then the waiting. When blocks run out the youngest running sequence gives its
blocks back and waits again at the front. Obeys `RunnerLimits` and knows no backend, no tensor and
no time: the same class runs under a virtual clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum, auto

from ridgeline_backends.base import Chunk, PagedLayout, RunnerLimits, Step
from ridgeline_backends.engine.block_manager import BlockManager
from ridgeline_backends.engine.sequence import Sequence


class _Phase(Enum):
    MIXED = auto()
    PREFILL = auto()
    DECODE = auto()


class Scheduler:
    """Holds every live sequence, in `waiting` (no blocks) or in `running`."""

    def __init__(self, limits: RunnerLimits) -> None:
        self.limits = limits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        layout = limits.kv_layout
        if isinstance(layout, PagedLayout):
            # To start behind a shared prefix is to compute a prompt in parts.
            self.blocks = BlockManager(
                layout.num_blocks, layout.block_size, share_prefixes=limits.chunked_prefill
            )
        else:
            # A slot is a block as long as the longest sequence.
            self.blocks = BlockManager(layout.num_slots, layout.slot_length, share_prefixes=False)

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
        self.waiting.append(seq)

    def remove(self, seq: Sequence) -> None:
        """Forget a sequence that finished, failed or was cancelled, and free its blocks."""
        if seq in self.running:
            self.running.remove(seq)
            self.blocks.release(seq)
        else:
            self.waiting.remove(seq)

    def sequences(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.waiting

    def schedule(self) -> Step:
        """The next step; an empty one if nothing can run, which is only if nothing is live."""
        if self.limits.mixed_phases:
            return self._plan(_Phase.MIXED)
        step = self._plan(_Phase.PREFILL)
        return step if step.chunks else self._plan(_Phase.DECODE)

    def computed(self, seq: Sequence, chunk: Chunk) -> None:
        """A step has run: the chunk's KV is in memory."""
        seq.computed += len(chunk.tokens)
        self.blocks.commit(seq)

    def check_integrity(self) -> None:
        """Raise `AssertionError` if a block leaked or a waiting sequence holds one."""
        assert all(not seq.blocks for seq in self.waiting), "a waiting sequence holds blocks"
        assert len(self.running) <= self.limits.batch_limit, "too many sequences run"
        self.blocks.check_integrity(self.running)

    def _plan(self, phase: _Phase) -> Step:
        chunks: list[Chunk] = []
        budget = self.limits.max_tokens
        preempted = False
        if phase is not _Phase.PREFILL:
            for seq in [seq for seq in self.running if seq.decoding]:
                if seq not in self.running:
                    continue  # it was preempted for an elder
                while not self.blocks.grow(seq):
                    preempted = True
                    if self._preempt() is seq:
                        break
                else:
                    chunks.append(self._chunk(seq, 1))
                    budget -= 1
        if phase is not _Phase.DECODE:
            for seq in [seq for seq in self.running if not seq.decoding]:
                budget -= self._prefill(seq, budget, chunks)
            while (
                self.waiting
                and not preempted
                and len(self.running) < self.limits.batch_limit
                and self._fits(self.waiting[0], budget)
            ):
                seq = self.waiting[0]
                first_time = not seq.generated
                if not self.blocks.admit(seq):
                    break
                self.running.append(self.waiting.popleft())
                if first_time:
                    seq.cached_tokens = seq.computed
                # With all but one token in a shared prefix it is a decode already.
                if phase is _Phase.MIXED or not seq.decoding:
                    budget -= self._prefill(seq, budget, chunks)
        return Step(tuple(chunks))

    def _fits(self, seq: Sequence, budget: int) -> bool:
        if self.limits.chunked_prefill:
            return budget > 0
        # Judged by the whole of it: what a shared prefix will save is not known yet.
        return self.limits.padded(seq.remaining) <= budget

    def _prefill(self, seq: Sequence, budget: int, chunks: list[Chunk]) -> int:
        """Add a chunk of `seq` if the budget allows; return what it costs."""
        count = min(seq.remaining, budget, self.limits.chunk_limit)
        while count and self.limits.padded(count) > budget:
            # The largest compiled size that still fits, or nothing.
            count = max((b for b in self.limits.sequence_buckets if b <= budget), default=0)
        if count <= 0 or (count < seq.remaining and not self.limits.chunked_prefill):
            return 0
        chunks.append(self._chunk(seq, count))
        return self.limits.padded(count)

    def _chunk(self, seq: Sequence, count: int) -> Chunk:
        end = seq.computed + count
        return Chunk(
            sequence_id=seq.id,
            tokens=tuple(seq.tokens[seq.computed : end]),
            start=seq.computed,
            blocks=tuple(seq.blocks),
            sample=seq.sample_request() if end == len(seq.tokens) else None,
        )

    def _preempt(self) -> Sequence:
        victim = self.running.pop()
        self.blocks.release(victim)
        self.waiting.appendleft(victim)
        self.preemptions += 1
        return victim
