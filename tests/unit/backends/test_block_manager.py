"""Blocks are shared exactly by equal prefixes, reused oldest first, and never lost."""

from __future__ import annotations

import pytest

from ridgeline_backends.engine import SamplingParams
from ridgeline_backends.engine.block_manager import BlockManager
from ridgeline_backends.engine.sequence import Sequence


def make(name: str, tokens: list[int]) -> Sequence:
    params = SamplingParams(max_tokens=8)
    return Sequence(name, tokens, params, seed=0, max_tokens=8, stop_tokens=frozenset())


def run(blocks: BlockManager, seq: Sequence) -> Sequence:
    """Admit and compute a sequence."""
    assert blocks.admit(seq)
    seq.computed = len(seq.tokens)
    blocks.commit(seq)
    return seq


def test_a_prefix_is_shared_by_whole_blocks():
    blocks = BlockManager(8, 4)
    first = run(blocks, make("a", list(range(10))))
    second = make("b", [*range(8), 99, 98, 97])
    assert blocks.admit(second)
    assert second.blocks[:2] == first.blocks[:2]
    assert second.computed == 8
    assert blocks.free_blocks == 8 - 3 - 1
    blocks.check_integrity([first, second])


def test_one_token_is_always_left_to_compute():
    blocks = BlockManager(8, 4)
    first = run(blocks, make("a", list(range(8))))
    twin = make("b", list(range(8)))
    assert blocks.admit(twin)
    assert twin.computed == 4
    assert twin.blocks[1] != first.blocks[1]


def test_a_freed_prefix_is_found_again_until_its_block_is_needed():
    blocks = BlockManager(4, 4)
    first = run(blocks, make("a", list(range(9))))
    blocks.release(first)
    assert blocks.free_blocks == 4
    again = make("b", list(range(9)))
    assert blocks.admit(again)
    assert again.computed == 8
    blocks.release(again)
    blocks.release(run(blocks, make("c", [50] * 16)))
    late = make("d", list(range(9)))
    assert blocks.admit(late)
    assert late.computed == 0
    blocks.check_integrity([late])


def test_the_tail_of_a_prefix_is_given_up_before_its_head():
    blocks = BlockManager(4, 4)
    blocks.release(run(blocks, make("a", list(range(13)))))
    blocks.release(run(blocks, make("b", [70, 71, 72, 73, 74])))
    again = make("c", list(range(13)))
    assert blocks.admit(again)
    assert again.computed == 8


def test_equal_tokens_behind_another_prefix_are_not_shared():
    blocks = BlockManager(8, 4)
    run(blocks, make("a", [1, 1, 1, 1, 5, 6, 7, 8, 0]))
    other = make("b", [2, 2, 2, 2, 5, 6, 7, 8, 0])
    assert blocks.admit(other)
    assert other.computed == 0


def test_a_hash_that_collides_is_not_trusted(monkeypatch: pytest.MonkeyPatch):
    class Constant:
        def __init__(self, data: bytes, digest_size: int) -> None: ...

        def digest(self) -> bytes:
            return b"same"

    monkeypatch.setattr("ridgeline_backends.engine.block_manager.blake2b", Constant)
    blocks = BlockManager(8, 4)
    run(blocks, make("a", [1, 2, 3, 4, 5]))
    other = make("b", [9, 9, 9, 9, 5])
    assert blocks.admit(other)
    assert other.computed == 0


def test_admission_changes_nothing_when_blocks_are_short():
    blocks = BlockManager(4, 4)
    first = run(blocks, make("a", list(range(8))))
    big = make("b", [*range(8), *range(20, 32)])
    assert not blocks.admit(big)
    assert (big.blocks, big.computed) == ((), 0)
    blocks.check_integrity([first])


def test_a_shared_block_that_is_free_counts_once():
    blocks = BlockManager(3, 4)
    blocks.release(run(blocks, make("a", list(range(8)))))
    # Two of the three free blocks are its own prefix; one more is needed, and one there is.
    again = make("b", list(range(12)))
    assert blocks.admit(again)
    assert blocks.free_blocks == 0
    assert not blocks.grow(_longer(again))


def test_integrity_notices_a_leak():
    blocks = BlockManager(4, 4)
    seq = run(blocks, make("a", [1, 2, 3]))
    with pytest.raises(AssertionError):
        blocks.check_integrity([])
    blocks.check_integrity([seq])


def _longer(seq: Sequence) -> Sequence:
    seq.tokens.append(1)
    return seq
