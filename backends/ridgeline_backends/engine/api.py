"""The seam between a model server and whatever generates tokens.

A server sees `Engine` and the plain types around it, and nothing else. Ours is `LLMEngine`; another
engine implements the same four verbs. This module knows no tokenizer, no text, no stop strings
(those belong to the server) and imports neither torch nor time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from ridgeline_backends.device_time import DeviceTime, SimulatedDevice
from ridgeline_backends.errors import AdaptersUnsupported, InvalidSampling, UnknownAdapter

MAX_LOGPROBS = 20
"""The most alternatives per token a caller may ask for (the OpenAI API's limit)."""


NO_TOKEN = -1
"""Stands where a token was to be chosen and the logits were no finite numbers."""


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    ERROR = "error"


class Failure(StrEnum):
    """What `FinishReason.ERROR` is due to: a step or the engine failed, and another attempt may
    succeed; or the sequence's own grammar can go no further; or the model's logits were no finite
    numbers."""

    ENGINE = "engine"
    GRAMMAR = "grammar"
    LOGITS = "logits"


class Constraint(Protocol):
    """Where one sequence stands in its grammar. Used by one thread at a time; never raises."""

    def mask(self) -> bytes:
        """The tokens that may come next, at least one: token t is bit t % 8 of byte t // 8, and
        those beyond the end may not. Tokens that end the sequence are set where it may end."""

    def accept(self, token: int) -> None:
        """Take the token that was chosen."""

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing may follow it."""

    @property
    def error(self) -> str | None:
        """Why the grammar can go no further (it is too complex, say), or None."""


class Grammar(Protocol):
    """What the text of a sequence must look like; shared by any number of sequences."""

    def start(self) -> Constraint:
        """A constraint at the beginning of a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to choose the tokens of one sequence. Raises `InvalidSampling` for a bad value.

    `temperature` 0 is greedy. `top_k` 0 and `top_p` 1 keep the whole vocabulary. Without a `seed`
    the engine draws one. `logprobs` is the number of alternatives reported beside the chosen token
    (0: the chosen one alone; None: nothing); they describe the model's own distribution, before
    temperature, top-k and top-p, and so does `prompt_logprobs`, the same for the prompt's tokens.
    `min_p` drops tokens with less than that share of the likeliest one's probability.
    `presence_penalty`, `frequency_penalty` and `repetition_penalty` are those of
    `ridgeline_backends.history.Penalties`; `logit_bias` is added to the logits of single tokens.
    `ignore_eos` disregards the model's end-of-sequence tokens, never `stop_token_ids`; until
    `min_tokens` are out neither kind can be chosen. A `grammar` forms the text, and ends it.
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
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    prompt_logprobs: int | None = None
    grammar: Grammar | None = None

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
        for name, count in (("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)):
            holds = count is None or 0 <= count <= MAX_LOGPROBS
            require(name, holds, f"between 0 and {MAX_LOGPROBS}")
        require("min_p", 0.0 <= self.min_p <= 1.0, "between 0 and 1")
        require("presence_penalty", -2.0 <= self.presence_penalty <= 2.0, "between -2 and 2")
        require("frequency_penalty", -2.0 <= self.frequency_penalty <= 2.0, "between -2 and 2")
        require("repetition_penalty", 0.0 < self.repetition_penalty <= 10.0, "above 0, at most 10")
        biases = [bias for _, bias in self.logit_bias]
        require("logit_bias", all(-100 <= bias <= 100 for bias in biases), "from -100 to 100 each")
        require("min_tokens", 0 <= self.min_tokens <= self.max_tokens, "between 0 and max_tokens")

    @property
    def penalised(self) -> bool:
        """Whether a choice depends on the tokens before it other than through the model."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1)


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The log-probability of the chosen token and of the `top` likeliest, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When a sequence got how far, in seconds of the engine's clock. None: not so far.

    `scheduled` is the beginning of the first step that had it, `first_token` and `finished` the end
    of the steps that brought them.
    """

    submitted: float
    scheduled: float | None = None
    first_token: float | None = None
    finished: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedTimes:
    """How long a sequence took of a simulated device: from its submission to its first token and to
    now, the steps of others that it waited for included. `own_seconds` is its share of the steps
    that it was in, each divided by its sequences."""

    device: SimulatedDevice
    first_token: DeviceTime
    total: DeviceTime
    own_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOutput:
    """News of one sequence. The last one has `finish_reason`, and exactly one has.

    `token_ids` are new since the previous output: one, or several where guesses were right. A stop
    or end-of-sequence token is included, so that usage adds up; a server drops it from the text.
    `cached_tokens` counts prompt tokens that a shared prefix saved. `prompt_logprobs` come with the
    first token, for every token of the prompt but its first. `error` says what happened with
    `FinishReason.ERROR` and `TIMEOUT`, `failure` what the former is due to. `times` comes with the
    first token and the last output, `simulated` from the first token on where the device is
    simulated.

    A grammar that is complete ends a sequence with `FinishReason.STOP` and no stop token.
    """

    sequence_id: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    error: str | None = None
    failure: Failure = Failure.ENGINE
    times: Times | None = None
    simulated: SimulatedTimes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A consistent picture of an engine, taken between two steps. Totals count since start.

    `alive` turns False for good when the engine stops, whether asked to or broken. `prompt_tokens`
    are those computed; `prefix_hits` of `prefix_queries` prompt tokens were found in memory.
    `drafts` chunks had `draft_tokens` guesses, of which `accepted_tokens` were right.
    `busy_seconds` is time in which there was something to generate, `device_seconds` that part of
    it in which the runner worked; of several copies of a model they are sums. `adapters` are those
    loaded. `simulated` is the predicted time of all steps on `simulates`, where the device is
    simulated.
    """

    alive: bool = True
    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    max_waiting: int = 0
    free_blocks: int = 0
    total_blocks: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    generated_tokens: int = 0
    drafts: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    preemptions: int = 0
    finished: int = 0
    cancelled: int = 0
    timed_out: int = 0
    failed: int = 0
    device_seconds: float = 0.0
    busy_seconds: float = 0.0
    adapters: tuple[str, ...] = ()
    simulates: SimulatedDevice | None = None
    simulated: DeviceTime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One step: seconds on the device, tokens computed, sequences in it."""

    seconds: float
    tokens: int
    sequences: int


Sink = Callable[[EngineOutput], None]


class Engine(ABC):
    """Generates token sequences. Every method may be called from any thread."""

    @property
    @abstractmethod
    def max_model_len(self) -> int:
        """The most tokens, prompt and completion together, that one sequence may have."""

    @abstractmethod
    def submit(
        self,
        sequence_id: str,
        prompt: Sequence[int],
        params: SamplingParams,
        sink: Sink,
        *,
        priority: int = 0,
        timeout_s: float | None = None,
        adapter: str | None = None,
    ) -> None:
        """Queue a sequence. `sink` is called on the engine's thread and must not block.

        A lower `priority` goes first, and takes the place of a higher one that runs. A sequence
        that has not ended after `timeout_s` seconds ends with `FinishReason.TIMEOUT`. `adapter`
        names a loaded LoRA adapter.

        Raises `PromptTooLong`, `InvalidSampling`, `QueueFull`, `DuplicateSequence`,
        `UnknownAdapter`, `EngineStopped`; after it returns, `sink` is called until `finish_reason`
        is set.
        """

    @abstractmethod
    def cancel(self, sequence_id: str) -> None:
        """End a sequence soon, with `FinishReason.CANCELLED`. Unknown ids are ignored."""

    def load_adapter(self, name: str, directory: Path) -> None:
        """Load a LoRA adapter under traffic; when it returns, sequences may name it.

        Raises `AdaptersUnsupported`, `AdapterExists`, `InvalidAdapter`, `TooManyAdapters`.
        """
        raise AdaptersUnsupported

    def unload_adapter(self, name: str) -> Future[None]:
        """Refuse new sequences for the adapter at once. The future is done when those that use it
        have ended and the adapter is gone. Raises `UnknownAdapter`."""
        raise UnknownAdapter(name, None)

    @abstractmethod
    def stats(self) -> EngineStats:
        """The engine as it stood after its latest step."""

    @abstractmethod
    def start(self) -> None:
        """Begin to generate."""

    @abstractmethod
    def stop(self) -> None:
        """End every live sequence with `FinishReason.ERROR` and release the thread."""
