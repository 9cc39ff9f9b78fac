"""A runner without a model, for tests of schedulers, engines and servers. Imports no torch.

`FakeRunner` keeps token ids where a real runner keeps keys and values, and reads a sequence back
through its block table before it answers: a wrong table, a block shared by mistake or a token that
was never computed changes the output. It refuses any step that its limits forbid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from ridgeline_backends.base import (
    AnyAdapter,
    Chunk,
    LoraRunner,
    ModelRunner,
    PagedLayout,
    RunnerLimits,
    SampledToken,
    SampleRequest,
    Step,
    StepResult,
)
from ridgeline_backends.device_time import DeviceTime
from ridgeline_backends.engine.api import TokenLogprobs
from ridgeline_backends.errors import InvalidAdapter


def paged_limits(
    *,
    blocks: int = 16,
    block_size: int = 4,
    max_tokens: int = 16,
    max_sequences: int = 4,
    max_model_len: int = 48,
    draft_tokens: int = 0,
) -> RunnerLimits:
    """A runner that mixes phases and splits prompts, like a CPU or a GPU."""
    return RunnerLimits(
        max_model_len=max_model_len,
        max_tokens=max_tokens,
        max_sequences=max_sequences,
        kv_layout=PagedLayout(block_size, blocks),
        draft_tokens=draft_tokens,
    )


def next_token(
    prefix: Sequence[int], seed: int, vocab_size: int, adapter: Path | None = None
) -> int:
    """What `FakeRunner` answers to these tokens with this seed, and the adapter from there."""
    about = (list(prefix), seed) if adapter is None else (list(prefix), seed, str(adapter))
    digest = blake2b(repr(about).encode(), digest_size=8).digest()
    return int.from_bytes(digest) % vocab_size


@dataclass(frozen=True, slots=True)
class FakeAdapter:
    """Stands for what a directory holds. One whose name begins with "bad" cannot be read."""

    name: str
    directory: Path


class FakeRunner(ModelRunner, LoraRunner):
    """Obeys and enforces any `RunnerLimits`. `fail_on` makes steps with that token raise. `choose`
    answers to tokens and seed in place of `next_token`. `seconds`: how long so many rows take."""

    def __init__(
        self,
        limits: RunnerLimits,
        *,
        vocab_size: int = 50,
        eos_token_ids: frozenset[int] = frozenset(),
        fail_on: int | None = None,
        choose: Callable[[Sequence[int], int], int] | None = None,
        seconds: Callable[[int], float] = lambda rows: 0.001,
        max_adapters: int = 0,
    ) -> None:
        self._limits = limits
        self._vocab_size = vocab_size
        self._eos = eos_token_ids
        self._fail_on = fail_on
        self._choose = choose
        self._seconds = seconds
        self._max_adapters = max_adapters
        layout = limits.kv_layout
        self._size = layout.block_size if isinstance(layout, PagedLayout) else layout.slot_length
        self._memory: dict[tuple[int, int], tuple[int, Path | None]] = {}
        self.attached: dict[str, Path] = {}
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

    @property
    def max_adapters(self) -> int:
        return self._max_adapters

    def read_adapter(self, name: str, directory: Path) -> FakeAdapter:
        if directory.name.startswith("bad"):
            raise InvalidAdapter(name, "it is bad")
        return FakeAdapter(name, directory)

    def attach_adapter(self, adapter: AnyAdapter) -> None:
        assert isinstance(adapter, FakeAdapter)
        assert adapter.name not in self.attached, "attached twice"
        self.attached[adapter.name] = adapter.directory

    def detach_adapter(self, name: str) -> None:
        del self.attached[name]

    def execute(self, step: Step) -> StepResult:
        self._check(step)
        self.steps.append(step)
        if any(self._fail_on in chunk.tokens for chunk in step.chunks):
            raise RuntimeError("the device is on fire")
        for chunk in step.chunks:
            for offset, token in enumerate(chunk.tokens):
                slot = self._slot(chunk, chunk.start + offset)
                self._memory[slot] = token, self._adapter(chunk)
        tokens = tuple(
            self._sample(chunk, chunk.sample.after(guess), chunk.draft - guess)
            for chunk in step.chunks
            if chunk.sample is not None
            for guess in range(chunk.draft + 1)
        )
        scores = tuple(
            tuple(TokenLogprobs(token, -1.0) for token in chunk.score)
            for chunk in step.chunks
            if chunk.score
        )
        rows = sum(len(chunk.tokens) for chunk in step.chunks)
        seconds = DeviceTime(seconds=self._seconds(rows))
        return StepResult(tokens=tokens, scores=scores, device_time=seconds)

    def _sample(self, chunk: Chunk, request: SampleRequest, unseen: int) -> SampledToken:
        """Choose a token after all but the last `unseen` tokens of the chunk."""
        adapter = self._adapter(chunk)
        length = chunk.start + len(chunk.tokens) - unseen
        prefix = []
        for position in range(length):
            token, computed_with = self._memory[self._slot(chunk, position)]
            assert computed_with == adapter, "KV of another adapter"
            prefix.append(token)
        if self._choose is not None:
            token = self._choose(prefix, request.seed)
        else:
            token = next_token(prefix, request.seed, self._vocab_size, adapter)
        while token in request.banned:
            token = (token + 1) % self._vocab_size
        logprobs = None if request.logprobs is None else TokenLogprobs(token, -1.0)
        return SampledToken(token, logprobs)

    def _adapter(self, chunk: Chunk) -> Path | None:
        return None if chunk.adapter is None else self.attached[chunk.adapter]

    def _slot(self, chunk: Chunk, position: int) -> tuple[int, int]:
        return chunk.blocks[position // self._size], position % self._size

    def _check(self, step: Step) -> None:
        limits = self._limits
        assert step.chunks, "an empty step"
        assert len(step.chunks) <= limits.batch_limit, "too many sequences"
        names = [chunk.sequence_id for chunk in step.chunks]
        assert len(set(names)) == len(names), "a sequence twice in one step"
        decodes = [c for c in step.chunks if c.start and len(c.tokens) == 1 + c.draft and c.sample]
        prefills = [chunk for chunk in step.chunks if chunk not in decodes]
        cost = sum(len(chunk.tokens) for chunk in decodes)
        cost += sum(limits.padded(len(chunk.tokens)) for chunk in prefills)
        assert cost <= limits.max_tokens, "too many tokens"
        assert limits.mixed_phases or not (decodes and prefills), "phases mixed"
        for chunk in step.chunks:
            assert 1 <= len(chunk.tokens) <= limits.chunk_limit, "a chunk of a forbidden size"
            assert chunk.start + len(chunk.tokens) <= limits.max_model_len, "beyond the context"
            assert chunk.draft <= limits.draft_tokens, "too many guesses"
        if not limits.chunked_prefill:
            assert all(c.start == 0 and c.sample is not None for c in prefills), "a prompt in parts"
