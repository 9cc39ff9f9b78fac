"""One generation: its tokens, how far they are computed, and the blocks that hold their KV.

Knows nothing of other sequences, of time or of tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ridgeline_backends.base import SampleRequest
from ridgeline_backends.engine.api import FinishReason, SamplingParams


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens` are the prompt and what was generated; the KV of the first `computed` is in memory.

    `hashes` and `committed` belong to the block manager: the chained hashes of full blocks, and how
    many blocks are published for sharing.
    """

    id: str
    tokens: list[int]
    params: SamplingParams
    seed: int
    max_tokens: int
    stop_tokens: frozenset[int]
    prompt_len: int = 0
    computed: int = 0
    cached_tokens: int = 0
    blocks: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    committed: int = 0

    def __post_init__(self) -> None:
        self.prompt_len = len(self.tokens)

    @property
    def remaining(self) -> int:
        """Tokens whose KV is still to be computed. One of them at least, or there are no logits."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        """Whether all but the newest token is in memory."""
        return self.computed > 0 and self.remaining == 1

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_len

    def sample_request(self) -> SampleRequest:
        """How to choose the next token. Depends on this sequence and its own length alone."""
        params = self.params
        return SampleRequest(
            seed=self.seed,
            index=self.generated,
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            logprobs=params.logprobs,
            banned=self.stop_tokens if self.generated < params.min_tokens else frozenset(),
        )

    def append(self, token: int) -> FinishReason | None:
        """Take a new token; say whether it ends the sequence."""
        self.tokens.append(token)
        if token in self.stop_tokens:
            return FinishReason.STOP
        return FinishReason.LENGTH if self.generated >= self.max_tokens else None
