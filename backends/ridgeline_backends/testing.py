"""A runner without a model, for tests of schedulers, engines and servers. Imports no torch.

`FakeRunner` keeps token ids where a real runner keeps keys and values, and reads a sequence back
through its block table before it answers: a wrong table, a block shared by mistake or a token that
was never computed changes the output. It refuses any step that its limits forbid.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from ridgeline_backends.base import (
    Chunk,
    DeviceTime,
    ModelRunner,
    PagedLayout,
    RunnerLimits,
    SampledToken,
    Step,
    StepResult,
)
from ridgeline_backends.engine.api import TokenLogprobs


def paged_limits(
    *,
    blocks: int = 16,
    block_size: int = 4,
    max_tokens: int = 16,
    max_sequences: int = 4,
    max_model_len: int = 48,
) -> RunnerLimits:
    """A runner that mixes phases and splits prompts, like a CPU or a GPU."""
    return RunnerLimits(
        max_model_len=max_model_len,
        max_tokens=max_tokens,
        max_sequences=max_sequences,
        kv_layout=PagedLayout(block_size, blocks),
    )


def next_token(prefix: Sequence[int], seed: int, vocab_size: int) -> int:
    """What `FakeRunner` answers to these tokens with this seed."""
    digest = blake2b(repr((list(prefix), seed)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) % vocab_size


class FakeRunner(ModelRunner):
    """Obeys and enforces any `RunnerLimits`. `fail_on` makes steps with that token raise."""

    def __init__(
        self,
        limits: RunnerLimits,
        *,
        vocab_size: int = 50,
        eos_token_ids: frozenset[int] = frozenset(),
        fail_on: int | None = None,
    ) -> None:
        self._limits = limits
        self._vocab_size = vocab_size
        self._eos = eos_token_ids
        self._fail_on = fail_on
        layout = limits.kv_layout
        self._size = layout.block_size if isinstance(layout, PagedLayout) else layout.slot_length
        self._memory: dict[tuple[int, int], int] = {}
        self.steps: list[Step] = []

    @property
    def limits(self) -> RunnerLimits:
        return self._limits

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def eos_token_ids(self) -> frozenset[int]:
        return self._eos

    def execute(self, step: Step) -> StepResult:
        self._check(step)
        self.steps.append(step)
        if any(self._fail_on in chunk.tokens for chunk in step.chunks):
            raise RuntimeError("the device is on fire")
        for chunk in step.chunks:
            for offset, token in enumerate(chunk.tokens):
                self._memory[self._slot(chunk, chunk.start + offset)] = token
        tokens = tuple(self._sample(chunk) for chunk in step.chunks if chunk.sample is not None)
        return StepResult(tokens=tokens, device_time=DeviceTime(seconds=0.001))

    def _sample(self, chunk: Chunk) -> SampledToken:
        assert chunk.sample is not None
        length = chunk.start + len(chunk.tokens)
        prefix = [self._memory[self._slot(chunk, position)] for position in range(length)]
        request = chunk.sample
        token = next_token(prefix, request.seed, self._vocab_size)
        while token in request.banned:
            token = (token + 1) % self._vocab_size
        logprobs = None if request.logprobs is None else TokenLogprobs(token, -1.0)
        return SampledToken(token, logprobs)

    def _slot(self, chunk: Chunk, position: int) -> tuple[int, int]:
        return chunk.blocks[position // self._size], position % self._size

    def _check(self, step: Step) -> None:
        limits = self._limits
        assert step.chunks, "an empty step"
        assert len(step.chunks) <= limits.batch_limit, "too many sequences"
        names = [chunk.sequence_id for chunk in step.chunks]
        assert len(set(names)) == len(names), "a sequence twice in one step"
        decodes = [c for c in step.chunks if c.start and len(c.tokens) == 1 and c.sample]
        prefills = [chunk for chunk in step.chunks if chunk not in decodes]
        cost = len(decodes) + sum(limits.padded(len(chunk.tokens)) for chunk in prefills)
        assert cost <= limits.max_tokens, "too many tokens"
        assert limits.mixed_phases or not (decodes and prefills), "phases mixed"
        for chunk in step.chunks:
            assert 1 <= len(chunk.tokens) <= limits.chunk_limit, "a chunk of a forbidden size"
            assert chunk.start + len(chunk.tokens) <= limits.max_model_len, "beyond the context"
        if not limits.chunked_prefill:
            assert all(c.start == 0 and c.sample is not None for c in prefills), "a prompt in parts"
