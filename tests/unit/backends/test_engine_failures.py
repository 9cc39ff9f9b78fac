"""A sequence that cannot go on ends alone, and says what that is due to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ridgeline_backends.base import Dtype, LoadSpec
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.engine import (
    NO_TOKEN,
    EngineOutput,
    Failure,
    FinishReason,
    LLMEngine,
    SamplingParams,
)
from ridgeline_backends.engine.draft_model import DraftModel
from ridgeline_backends.engine.drafting import PromptLookup
from ridgeline_backends.engine.speculation import Speculation
from ridgeline_backends.testing import FakeRunner, paged_limits

DAMAGED = 7
"""A token whose embedding is no number."""

GREEDY = SamplingParams(max_tokens=8, temperature=0, seed=1)


class TooComplex:
    """A grammar that gives up after two tokens."""

    def __init__(self) -> None:
        self.error: str | None = None
        self.finished = False
        self._taken = 0

    def start(self) -> TooComplex:
        return TooComplex()

    def mask(self) -> bytes:
        return b"\xff" * 8

    def accept(self, token: int) -> None:
        self._taken += 1
        self.error = "too many items" if self._taken == 2 else None


def generate(
    engine: LLMEngine, prompts: dict[str, list[int]], params: SamplingParams = GREEDY
) -> dict[str, list[EngineOutput]]:
    outputs: dict[str, list[EngineOutput]] = {name: [] for name in prompts}
    for name, prompt in prompts.items():
        engine.submit(name, prompt, params, outputs[name].append)
    while engine.step():
        engine.check_integrity()
    engine.check_integrity()
    stats = engine.stats()
    assert stats.free_blocks == stats.total_blocks
    return outputs


def tokens(outputs: list[EngineOutput]) -> list[int]:
    return [token for output in outputs for token in output.token_ids]


def test_a_sequence_without_finite_logits_fails_alone() -> None:
    """After two tokens, in a batch with another."""
    chosen = [3, 4, NO_TOKEN]

    def choose(prefix: Sequence[int], seed: int) -> int:
        return chosen[len(prefix) - 2] if prefix[0] == DAMAGED else 5

    engine = LLMEngine(FakeRunner(paged_limits(), choose=choose))
    outputs = generate(engine, {"broken": [DAMAGED, 1], "whole": [1, 2]})
    assert tokens(outputs["broken"]) == [3, 4]
    last = outputs["broken"][-1]
    assert (last.finish_reason, last.failure) == (FinishReason.ERROR, Failure.LOGITS)
    assert last.error == "the model's logits are not finite numbers"
    assert tokens(outputs["whole"]) == [5] * 8
    assert engine.stats().failed == 1


def test_guesses_before_a_broken_row_are_kept() -> None:
    def choose(prefix: Sequence[int], seed: int) -> int:
        return NO_TOKEN if len(prefix) == 11 else (1, 2, 3, 4)[len(prefix) % 4]

    limits = paged_limits(draft_tokens=4)
    speculation = Speculation(PromptLookup(shortest=1, longest=3), always=True)
    runner = FakeRunner(limits, choose=choose)
    engine = LLMEngine(runner, speculation=speculation)
    [outputs] = generate(engine, {"a": [1, 2, 3, 4, 1, 2, 3, 4]}).values()
    assert tokens(outputs) == [1, 2, 3]
    assert outputs[-1].failure is Failure.LOGITS
    assert engine.stats().accepted_tokens > 0


def test_a_draft_model_without_finite_logits_guesses_nothing() -> None:
    limits = paged_limits(draft_tokens=4)
    draft = DraftModel(FakeRunner(limits, choose=lambda prefix, seed: NO_TOKEN))
    runner = FakeRunner(limits, choose=lambda prefix, seed: 5)
    engine = LLMEngine(runner, speculation=Speculation(draft, always=True))
    [outputs] = generate(engine, {"a": [1, 2, 3]}).values()
    assert tokens(outputs) == [5] * 8
    assert engine.stats().draft_tokens == 0


def test_a_grammar_that_can_go_no_further_says_so() -> None:
    engine = LLMEngine(FakeRunner(paged_limits()))
    params = SamplingParams(max_tokens=8, grammar=TooComplex())
    [outputs] = generate(engine, {"a": [1, 2]}, params).values()
    last = outputs[-1]
    assert (last.finish_reason, last.failure) == (FinishReason.ERROR, Failure.GRAMMAR)
    assert last.error == "the grammar cannot go on: too many items"


def test_a_grammar_that_fails_and_leaves_the_end_has_not_come_to_it() -> None:
    grammar = TooComplex()
    grammar.start = lambda: grammar  # type: ignore[method-assign]

    def choose(prefix: Sequence[int], seed: int) -> int:
        if len(prefix) < 3:
            return 5
        # What llguidance does when a mask takes too much.
        grammar.error = "too many expressions"
        return 9

    engine = LLMEngine(FakeRunner(paged_limits(), choose=choose))
    params = SamplingParams(max_tokens=8, grammar=grammar, stop_token_ids=frozenset({9}))
    [outputs] = generate(engine, {"a": [1, 2]}, params).values()
    last = outputs[-1]
    assert (last.finish_reason, last.failure) == (FinishReason.ERROR, Failure.GRAMMAR)


@pytest.mark.parametrize("dtype", [Dtype.FP32, Dtype.BF16])
def test_damaged_weights_harm_nobody_who_does_not_use_them(
    make_llama: Callable[..., Path], dtype: Dtype
) -> None:
    """Neither beside them in a step, nor in the memory that they leave."""
    folder = make_llama(tie_word_embeddings=False)
    backend = CpuBackend()
    config = json.loads((folder / "config.json").read_text())
    spec = LoadSpec(dtype=dtype, max_model_len=64, max_num_seqs=4, kv_cache_bytes=2**17)

    def engine() -> LLMEngine:
        return LLMEngine(backend.load(backend.compile(folder, backend.plan(config, spec))))  # type: ignore[arg-type]

    prompts = {str(place): [20 + place, 30, 40] for place in range(3)}
    whole = generate(engine(), prompts)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][DAMAGED] = math.nan
    save_file(weights, folder / "model.safetensors")
    damaged = engine()
    together = generate(damaged, {**prompts, "broken": [DAMAGED] * 30})
    assert together["broken"][-1].failure is Failure.LOGITS
    for _ in range(4):
        again = generate(damaged, {**prompts, "broken": [DAMAGED] * 30})
    for name in prompts:
        assert tokens(together[name]) == tokens(whole[name]) == tokens(again[name])
