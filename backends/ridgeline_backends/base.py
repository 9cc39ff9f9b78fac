"""What a backend is: probe, plan, compile, load, and a runner that executes one step at a time.

Everything a scheduler may know about a runner is in `RunnerLimits`, everything a runner may know
about a sequence is in `Chunk`. No module that is imported here loads torch: a tensor appears only
as the type of `StepResult.logits`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self

from ridgeline_backends.device_time import DeviceTime, SimulatedDevice
from ridgeline_backends.encoding import EmbeddingRunner, RerankRunner

if TYPE_CHECKING:
    import torch

    from ridgeline_backends.engine.api import TokenLogprobs
    from ridgeline_backends.history import Penalties


class Dtype(StrEnum):
    """The precision in which weights and KV memory are kept."""

    BF16 = "bf16"
    FP32 = "fp32"

    @property
    def bytes(self) -> int:
        return 2 if self is Dtype.BF16 else 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReport:
    """What a probe found. `reason` says why a backend is not usable; `notes` are worth reading."""

    backend: str
    usable: bool
    device: str = ""
    memory_bytes: int = 0
    threads: int = 0
    reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """How a model is to be served. `exact_num_seqs`: a backend that compiles a decoder for a number
    of sequences compiles for `max_num_seqs`, or refuses, and not for fewer. `kv_cache_bytes`, of
    each copy, None: enough for `max_num_seqs` sequences of the whole context, or what there is.
    `threads` None: all cores. There is to be room for `max_adapters` LoRA adapters of at most
    `max_adapter_rank`. `quantize` "int8": matrices and what they multiply in 8 bits, a scale for
    every 64 numbers of a row; tables and KV stay in `dtype`. `tensor_parallel`: over how many
    devices every matrix is split, where a backend has several; None for all of them.
    `data_parallel`: how many groups of so many devices have a copy of the model each. `instance`:
    the instance type a simulated backend is to stand for; `logical_nc_config`: how many of its
    physical cores make one, None for its default; `paced`: it answers when that would, not as soon
    as it can."""

    dtype: Dtype | Literal["bf16", "fp32"] = Dtype.BF16
    max_model_len: int | None = None
    max_num_seqs: int = 32
    exact_num_seqs: bool = False
    kv_cache_bytes: int | None = None
    block_size: int = 16
    max_tokens_per_step: int = 512
    threads: int | None = None
    max_adapters: int = 0
    max_adapter_rank: int = 16
    quantize: Literal["int8"] | None = None
    tensor_parallel: int | None = 1
    data_parallel: int = 1
    instance: str | None = None
    logical_nc_config: int | None = None
    paced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Bytes by kind."""

    weights: int
    kv: int
    scratch: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The answer to "will it run, and in how much memory?". Refusals forbid compiling.

    `generic`: no code of ours runs this model; the transformers library does, more slowly.
    `hint`: what to change where the refusals do not say it themselves.
    """

    backend: str
    architecture: str
    dtype: Dtype
    spec: LoadSpec
    max_model_len: int
    kv_blocks: int
    memory: MemoryNeed
    available_bytes: int
    generic: bool = False
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hint: str = "Lower max_model_len or max_num_seqs, or choose a larger instance type."

    @property
    def fits(self) -> bool:
        return not self.refusals


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model made ready for one backend. `key` is equal for equal content and equal plans;
    `made` says for people what was done for it, where there was anything to do."""

    model_dir: Path
    plan: Plan
    key: str
    made: str = ""


@dataclass(frozen=True, slots=True)
class PagedLayout:
    """KV memory in blocks of `block_size` tokens, any block usable by any sequence."""

    block_size: int
    num_blocks: int


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """KV memory in contiguous slots, one sequence each."""

    slot_length: int
    num_slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLimits:
    """What one step may be.

    `max_tokens`: tokens in a step, each chunk counted at the size of its sequence bucket.
    `mixed_phases`: prefill and decode may share a step. `chunked_prefill`: a prompt may be split
    over steps. `batch_buckets` and `sequence_buckets`: the compiled sizes; the runner pads to the
    next one, the scheduler never exceeds the largest. `preemptible`: a sequence may lose its memory
    to one of a higher priority, as its tokens give the same bits when they are computed again.
    `sampling` "device": the runner returns tokens; "host": it returns logits. `draft_tokens`: how
    many guesses a chunk may end with; 0 for a runner that looks at the last token only.
    """

    max_model_len: int
    max_tokens: int
    max_sequences: int
    kv_layout: PagedLayout | SlotLayout
    mixed_phases: bool = True
    chunked_prefill: bool = True
    preemptible: bool = True
    batch_buckets: tuple[int, ...] = ()
    sequence_buckets: tuple[int, ...] = ()
    sampling: Literal["device", "host"] = "device"
    draft_tokens: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < self.batch_limit:
            raise ValueError(
                f"max_tokens {self.max_tokens} is below the batch of {self.batch_limit}: "
                "a step must have room for one token of every sequence"
            )

    @property
    def batch_limit(self) -> int:
        """The most sequences in one step."""
        return min(self.max_sequences, max(self.batch_buckets, default=self.max_sequences))

    @property
    def chunk_limit(self) -> int:
        """The most tokens of one sequence in one step."""
        return min(self.max_tokens, max(self.sequence_buckets, default=self.max_tokens))

    def padded(self, tokens: int) -> int:
        """What a prefill chunk of so many tokens costs in this runner."""
        return min((size for size in self.sequence_buckets if size >= tokens), default=tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """How to choose token number `index` of a sequence.

    `min_p` drops tokens with less than that share of the likeliest one's probability. `bias` is
    added to logits. `banned` tokens cannot be chosen. `allowed` gives the tokens that a grammar
    leaves, as bits packed from the lowest (token t is bit t % 8 of byte t // 8); it is asked once,
    when the logits are there, and it wins over `banned` where the two leave nothing.
    """

    seed: int
    index: int
    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    logprobs: int | None = None
    banned: frozenset[int] = frozenset()
    bias: tuple[tuple[int, float], ...] = ()
    penalties: Penalties | None = None
    allowed: Callable[[], bytes | bytearray | memoryview] | None = None

    def after(self, count: int) -> SampleRequest:
        """The same for the token `count` places later."""
        return replace(self, index=self.index + count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One sequence's part of a step: compute `tokens` at positions `start`, `start + 1`, ...

    `blocks` is the block table (a single slot number under `SlotLayout`), long enough for all of
    them. With `sample`, the last token's logits choose the next token. The last `draft` tokens are
    guesses: then a token is chosen after each of the last `draft + 1`, with `sample` for the first
    of them and the following indices for the others. `adapter` names the LoRA adapter to apply.
    `score` holds the known next tokens of the first of `tokens`: their log-probabilities are
    reported, with the `score_top` likeliest alternatives.
    """

    sequence_id: str
    tokens: tuple[int, ...]
    start: int
    blocks: tuple[int, ...]
    sample: SampleRequest | None = None
    draft: int = 0
    adapter: str | None = None
    score: tuple[int, ...] = ()
    score_top: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What a runner executes at once."""

    chunks: tuple[Chunk, ...] = ()

    @property
    def samples(self) -> tuple[SampleRequest, ...]:
        """One request per token to choose, in the order of the rows whose logits choose them."""
        found: list[SampleRequest] = []
        for chunk in self.chunks:
            if chunk.sample is not None:
                found.append(chunk.sample)
                found.extend(chunk.sample.after(guess) for guess in range(1, chunk.draft + 1))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class SampledToken:
    token_id: int
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One entry of `tokens` per request of `Step.samples`, and one of `scores` per chunk that has
    `score`, in order. Where the limits say sampling is the host's, both come from `logits`: the
    rows of `sampling.wanted_rows` [rows, vocabulary] in float32."""

    tokens: tuple[SampledToken, ...] = ()
    scores: tuple[tuple[TokenLogprobs, ...], ...] = ()
    logits: torch.Tensor | None = field(default=None, repr=False)
    device_time: DeviceTime


class ModelRunner(ABC):
    """Weights and KV memory on a device. Used by one thread."""

    @property
    @abstractmethod
    def limits(self) -> RunnerLimits:
        """What a step may be. Constant."""

    @property
    @abstractmethod
    def vocab_size(self) -> int: ...

    @property
    @abstractmethod
    def eos_token_ids(self) -> frozenset[int]:
        """The tokens with which the model ends a sequence of its own accord."""

    @abstractmethod
    def execute(self, step: Step) -> StepResult:
        """Run one step: write the KV of every token in it, then sample where asked."""

    @property
    def simulates(self) -> SimulatedDevice | None:
        """The device whose time its steps report, where that is another than this machine's."""
        return None

    def close(self) -> None:  # noqa: B027  most runners have nothing to release
        """Release the device. The runner is not used afterwards."""


class AnyAdapter(Protocol):
    """What a runner made of an adapter's files: tensors, say."""

    @property
    def name(self) -> str: ...


class CopiedRunner(ABC):
    """Capability of a runner of any kind: there may be several groups of devices, each with a copy
    of the model."""

    @property
    @abstractmethod
    def copies(self) -> tuple[Self, ...]:
        """All, this one first. Each has KV of its own, if any, and may have its own thread."""


class LoraRunner(ABC):
    """Capability of a `ModelRunner`: applies a LoRA adapter to the chunks that name it."""

    @property
    @abstractmethod
    def max_adapters(self) -> int:
        """How many may be attached at once; 0 if the model was loaded without room for any."""

    @abstractmethod
    def read_adapter(self, name: str, directory: Path) -> AnyAdapter:
        """Read a PEFT adapter, on any thread. Raises `InvalidAdapter` for one that does not fit the
        model, or asks for what is not applied."""

    @abstractmethod
    def attach_adapter(self, adapter: AnyAdapter) -> None:
        """Make it usable. Called between two steps, as `detach_adapter` is."""

    @abstractmethod
    def detach_adapter(self, name: str) -> None:
        """Forget it. No chunk names it any more."""


class Backend(ABC):
    """A kind of device. Found by the entry-point group `ridgeline.backends`."""

    name: ClassVar[str]

    @abstractmethod
    def probe(self) -> DeviceReport:
        """What is here, or why it is not usable. Never raises."""

    @abstractmethod
    def plan(self, config: Mapping[str, object], spec: LoadSpec) -> Plan:
        """Check fit from a Hugging Face config alone. Raises `InvalidModel` for a model no plan
        can be made for; what does not fit is a refusal in the plan, not an error."""

    @abstractmethod
    def compile(self, model_dir: Path, plan: Plan) -> Artifact:
        """Make the model ready. Raises `DoesNotFit` for a plan with refusals."""

    @abstractmethod
    def load(self, artifact: Artifact) -> ModelRunner | EmbeddingRunner | RerankRunner:
        """Put the weights on the device."""
