"""KV memory in blocks: who holds which, and which full blocks can be shared.

A full block is published under a hash chained over the whole prefix (a cryptographic one: prompts
of strangers meet in this table), and its tokens are compared before it is shared. A freed block
keeps its content until it is handed out again, least recently used first, so a prefix outlives
the sequence that computed it. Knows no tensor and no time.

Tokens count only once they are accepted: a guess has room in a sequence's blocks, but no block is
published with one in it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from ridgeline_backends.base import RunnerLimits, SlotLayout
from ridgeline_backends.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class _Content:
    key: bytes
    tokens: tuple[int, ...]


class BlockManager:
    """Hands out `num_blocks` blocks of `block_size` tokens."""

    def __init__(self, num_blocks: int, block_size: int, *, share_prefixes: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._share = share_prefixes
        self._references = [0] * num_blocks
        self._content: dict[int, _Content] = {}
        self._by_key: dict[bytes, int] = {}
        # An ordered set: the front is the least recently used.
        self._free: dict[int, None] = dict.fromkeys(range(num_blocks))
        # Keys of the blocks that the step in the making will fill.
        self._promised: set[bytes] = set()
        self.prefix_queries = 0
        self.prefix_hits = 0

    @classmethod
    def of(cls, limits: RunnerLimits) -> BlockManager:
        """The KV memory of a runner. A slot is a block as long as the longest sequence."""
        layout = limits.kv_layout
        if isinstance(layout, SlotLayout):
            return cls(layout.num_slots, layout.slot_length, share_prefixes=False)
        # To start behind a shared prefix is to compute a prompt in parts.
        share = limits.chunked_prefill
        return cls(layout.num_blocks, layout.block_size, share_prefixes=share)

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    def fits(self, seq: Sequence) -> bool:
        """Whether `admit` would find enough free blocks."""
        return self._fresh(seq, self._shared_prefix(seq)) is not None

    def admit(self, seq: Sequence) -> bool:
        """Give a sequence without blocks all that its tokens need, shared ones first.

        Sets `computed` past the shared prefix, leaving at least one token to compute. Returns
        False, changing nothing, when there are too few free blocks, and when another sequence
        computes the next block of the prefix in this very step: the next step can share it.
        """
        shared = self._shared_prefix(seq)
        fresh = self._fresh(seq, shared)
        following = seq.hashes[len(shared) : len(shared) + 1]
        if fresh is None or not self._promised.isdisjoint(following):
            return False
        for block in shared:
            self._free.pop(block, None)
            self._references[block] += 1
        seq.blocks = (*shared, *(self._take() for _ in range(fresh)))
        seq.committed = len(shared)
        seq.computed = len(shared) * self.block_size
        if not seq.generated:
            seq.cached_tokens = seq.computed
            self.prefix_queries += seq.prompt_len
            self.prefix_hits += seq.computed
        return True

    def grow(self, seq: Sequence, guesses: int = 0) -> bool:
        """Make room for every token of a sequence that holds blocks, and for `guesses` behind
        them. False: too few are free."""
        wanted = len(seq.tokens) + guesses
        if wanted <= len(seq.blocks) * self.block_size:
            return True
        missing = self._blocks_for(wanted) - len(seq.blocks)
        if missing > len(self._free):
            return False
        seq.blocks = (*seq.blocks, *(self._take() for _ in range(missing)))
        return True

    def promise(self, seq: Sequence, count: int) -> None:
        """The step in the making computes the next `count` tokens of the sequence."""
        size = self.block_size
        self._promised.update(seq.hashes[seq.computed // size : (seq.computed + count) // size])

    def forget_promises(self) -> None:
        """A new step is in the making."""
        self._promised.clear()

    def commit(self, seq: Sequence) -> None:
        """Publish the blocks that became full. Called once their KV has been computed."""
        full = seq.computed // self.block_size
        if full <= seq.committed or not self._share:
            return
        self._hash_up_to(seq, full)
        for index in range(seq.committed, full):
            key, block = seq.hashes[index], seq.blocks[index]
            if key not in self._by_key:
                self._by_key[key] = block
                self._content[block] = _Content(key, self._tokens(seq, index))
        seq.committed = full

    def release(self, seq: Sequence) -> None:
        """Take back all blocks. The sequence is as it was before `admit`."""
        # Last block first: the head of a prefix is worth more than its tail.
        for block in reversed(seq.blocks):
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free[block] = None
        seq.blocks = ()
        seq.committed = 0
        seq.computed = 0

    def check_integrity(self, holders: Iterable[Sequence]) -> None:
        """Raise `AssertionError` unless `holders` account for every block that is not free."""
        counts = [0] * self.num_blocks
        for seq in holders:
            assert len(set(seq.blocks)) == len(seq.blocks), f"{seq.id} holds a block twice"
            assert len(seq.blocks) * self.block_size >= seq.computed, f"{seq.id} outgrew its blocks"
            for block in seq.blocks:
                counts[block] += 1
        assert counts == self._references, "reference counts differ from the holders'"
        assert set(self._free) == {b for b, n in enumerate(counts) if n == 0}, "a block leaked"
        assert {c.key: b for b, c in self._content.items()} == self._by_key, "index is stale"

    def _take(self) -> int:
        block = next(iter(self._free))
        del self._free[block]
        content = self._content.pop(block, None)
        if content is not None:
            del self._by_key[content.key]
        self._references[block] = 1
        return block

    def _fresh(self, seq: Sequence, shared: list[int]) -> int | None:
        """How many blocks it takes beside the shared ones; None: more than are free."""
        fresh = self._blocks_for(len(seq.tokens)) - len(shared)
        if fresh > len(self._free) - sum(1 for block in shared if block in self._free):
            return None
        return fresh

    def _shared_prefix(self, seq: Sequence) -> list[int]:
        if not self._share or seq.scores_prompt:
            return []
        reusable = (len(seq.tokens) - 1) // self.block_size
        self._hash_up_to(seq, reusable)
        shared: list[int] = []
        for index in range(reusable):
            block = self._by_key.get(seq.hashes[index])
            if block is None or self._content[block].tokens != self._tokens(seq, index):
                break
            shared.append(block)
        return shared

    def _hash_up_to(self, seq: Sequence, blocks: int) -> None:
        for index in range(len(seq.hashes), blocks):
            parent = seq.hashes[index - 1] if index else seq.salt
            content = array("q", self._tokens(seq, index)).tobytes()
            seq.hashes.append(blake2b(parent + content, digest_size=32).digest())

    def _tokens(self, seq: Sequence, index: int) -> tuple[int, ...]:
        return tuple(seq.tokens[index * self.block_size : (index + 1) * self.block_size])

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)
