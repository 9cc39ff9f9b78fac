"""The seam between a model server and whatever generates tokens.

A server sees `Engine` and the plain types around it, and nothing else. Ours is `LLMEngine`; another
engine implements the same four verbs. This module knows no tokenizer, no text, no stop strings
(those belong to the server) and imports neither torch nor time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ridgeline_backends.errors import InvalidSampling

MAX_LOGPROBS = 20
"""The most alternatives per token a caller may ask for (the OpenAI API's limit)."""


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to choose the tokens of one sequence. Raises `InvalidSampling` for a bad value.

    `temperature` 0 is greedy. `top_k` 0 and `top_p` 1 keep the whole vocabulary. Without a `seed`
    the engine draws one. `logprobs` is the number of alternatives reported beside the chosen token
    (0: the chosen one alone; None: nothing); they describe the model's own distribution, before
    temperature, top-k and top-p. `ignore_eos` disregards the model's end-of-sequence tokens,
    never `stop_token_ids`; until `min_tokens` are out neither kind can be chosen.
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop_token_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
    ignore_eos: bool = False
    min_tokens: int = 0

    def __post_init__(self) -> None:
        def require(field: str, holds: bool, expected: str) -> None:
            if not holds:
                raise InvalidSampling(field, getattr(self, field), expected)

        require("max_tokens", self.max_tokens >= 1, "at least 1")
        # Written so that NaN fails as well.
        require("temperature", 0.0 <= self.temperature <= 100.0, "between 0 and 100")
        require("top_k", self.top_k >= 0, "0 (off) or positive")
        require("top_p", 0.0 < self.top_p <= 1.0, "above 0 and at most 1")
        require("seed", self.seed is None or -(2**63) <= self.seed < 2**64, "a 64-bit integer")
        require(
            "logprobs",
            self.logprobs is None or 0 <= self.logprobs <= MAX_LOGPROBS,
            f"between 0 and {MAX_LOGPROBS}",
        )
        require("min_tokens", 0 <= self.min_tokens <= self.max_tokens, "between 0 and max_tokens")


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The log-probability of the chosen token and of the `top` likeliest, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOutput:
    """News of one sequence. The last one has `finish_reason`, and exactly one has.

    `token_ids` are new since the previous output. A stop or end-of-sequence token is included, so
    that usage adds up; a server drops it from the text. `cached_tokens` counts prompt tokens that
    a shared prefix saved. `error` is set with `FinishReason.ERROR` only.
    """

    sequence_id: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A consistent picture of an engine, taken between two steps. Totals count since start.

    `alive` turns False for good when the engine stops, whether asked to or broken.
    """

    alive: bool = True
    running: int = 0
    waiting: int = 0
    max_waiting: int = 0
    free_blocks: int = 0
    total_blocks: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    device_seconds: float = 0.0


Sink = Callable[[EngineOutput], None]


class Engine(ABC):
    """Generates token sequences. Every method may be called from any thread."""

    @property
    @abstractmethod
    def max_model_len(self) -> int:
        """The most tokens, prompt and completion together, that one sequence may have."""

    @abstractmethod
    def submit(
        self, sequence_id: str, prompt: Sequence[int], params: SamplingParams, sink: Sink
    ) -> None:
        """Queue a sequence. `sink` is called on the engine's thread and must not block.

        Raises `PromptTooLong`, `InvalidSampling`, `QueueFull`, `DuplicateSequence`,
        `EngineStopped`; after it returns, `sink` is called until `finish_reason` is set.
        """

    @abstractmethod
    def cancel(self, sequence_id: str) -> None:
        """End a sequence soon, with `FinishReason.CANCELLED`. Unknown ids are ignored."""

    @abstractmethod
    def stats(self) -> EngineStats:
        """The engine as it stood after its latest step."""

    @abstractmethod
    def start(self) -> None:
        """Begin to generate."""

    @abstractmethod
    def stop(self) -> None:
        """End every live sequence with `FinishReason.ERROR` and release the thread."""
