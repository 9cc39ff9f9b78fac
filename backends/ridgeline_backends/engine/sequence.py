"""One generation: its tokens, how far they are computed, and the blocks that hold their KV.

Knows nothing of other sequences, of time or of tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ridgeline_backends.base import Chunk, SampleRequest
from ridgeline_backends.biases import Biases
from ridgeline_backends.engine.api import (
    NO_TOKEN,
    Constraint,
    Failure,
    FinishReason,
    SamplingParams,
    TokenLogprobs,
)
from ridgeline_backends.history import Penalties, TokenHistory

_NONE: frozenset[int] = frozenset()


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens` are the prompt and what was generated; the KV of the first `computed` is in memory.

    `rank` orders sequences: priority first (the lower the sooner), then arrival. `salt` is what the
    hash of the first block begins with, so that only sequences with equal salts share blocks.
    `blocks`, `hashes` and `committed` belong to the block manager: the block table, the chained
    hashes of full blocks, and how many blocks are published for sharing. `constraint` is
    where it stands in its grammar, if it has one.
    """

    id: str
    tokens: list[int]
    params: SamplingParams
    seed: int
    max_tokens: int
    stop_tokens: frozenset[int]
    rank: tuple[int, int] = (0, 0)
    adapter: str | None = None
    salt: bytes = b""
    prompt_len: int = 0
    computed: int = 0
    cached_tokens: int = 0
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    blocks: tuple[int, ...] = ()
    hashes: list[bytes] = field(default_factory=list)
    committed: int = 0
    constraint: Constraint | None = None
    error: str | None = None
    failure: Failure = Failure.ENGINE
    _bias: Biases = field(default_factory=Biases)
    _penalties: Penalties | None = None

    def __post_init__(self) -> None:
        params = self.params
        self.prompt_len = len(self.tokens)
        self._bias = Biases(params.logit_bias)
        if params.penalised:
            self._penalties = Penalties(
                history=TokenHistory(self.tokens),
                presence=params.presence_penalty,
                frequency=params.frequency_penalty,
                repetition=params.repetition_penalty,
            )

    @property
    def remaining(self) -> int:
        """Tokens whose KV is still to be computed. One of them at least, or there are no logits."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        """Whether all but the newest token is in memory."""
        return self.computed > 0 and len(self.tokens) - self.computed == 1

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_len

    @property
    def scores_prompt(self) -> bool:
        """Whether every prompt token is to be scored: then it cannot begin behind a prefix."""
        return self.params.prompt_logprobs is not None

    @property
    def may_guess(self) -> bool:
        """Whether the next few choices depend on the tokens through the model alone."""
        params = self.params
        return (
            params.grammar is None
            and not params.penalised
            and len(self.tokens) - self.prompt_len >= params.min_tokens
        )

    def chunk(self, count: int, guesses: tuple[int, ...] = ()) -> Chunk:
        """The next `count` tokens to compute; with all of them, `guesses` may follow."""
        start, tokens = self.computed, self.tokens
        end = start + count
        known: tuple[int, ...] = ()
        if start < self.prompt_len and self.scores_prompt and not self.generated:
            known = tuple(tokens[start + 1 : end + 1])
        return Chunk(
            sequence_id=self.id,
            tokens=(*tokens[start:end], *guesses) if count > 1 else (tokens[start], *guesses),
            start=start,
            blocks=self.blocks,
            sample=self.sample_request() if end == len(tokens) else None,
            draft=len(guesses),
            adapter=self.adapter,
            score=known,
            score_top=self.params.prompt_logprobs or 0,
        )

    def sample_request(self) -> SampleRequest:
        """How to choose the next token. Depends on this sequence and its own length alone."""
        params, generated = self.params, len(self.tokens) - self.prompt_len
        return SampleRequest(
            seed=self.seed,
            index=generated,
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            logprobs=params.logprobs,
            banned=self.stop_tokens if generated < params.min_tokens else _NONE,
            bias=self._bias,
            penalties=self._penalties,
            allowed=None if self.constraint is None else self.constraint.mask,
        )

    def append(self, token: int) -> FinishReason | None:
        """Take a new token; say whether it ends the sequence. `error` says why with `ERROR`, and
        `failure` what that is due to. `NO_TOKEN` is not taken, and ends it."""
        if token == NO_TOKEN:
            return self._fail(Failure.LOGITS, "the model's logits are not finite numbers")
        self.tokens.append(token)
        ends = token in self.stop_tokens
        if self.constraint is not None:
            if not ends:
                self.constraint.accept(token)
            # It may have failed before, and left nothing but the end.
            if self.constraint.error is not None:
                why = f"the grammar cannot go on: {self.constraint.error}"
                return self._fail(Failure.GRAMMAR, why)
        if ends or (self.constraint is not None and self.constraint.finished):
            return FinishReason.STOP
        if self._penalties is not None:
            self._penalties.history.add(token)
        return (
            FinishReason.LENGTH if len(self.tokens) - self.prompt_len >= self.max_tokens else None
        )

    def _fail(self, failure: Failure, error: str) -> FinishReason:
        self.failure, self.error = failure, error
        return FinishReason.ERROR

    def scored(self, chunk: Chunk, logprobs: tuple[TokenLogprobs, ...]) -> None:
        """Take the log-probabilities of a part of the prompt, perhaps again after a preemption."""
        self.prompt_logprobs[chunk.start :] = logprobs
