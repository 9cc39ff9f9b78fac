"""Where a layer of a decoder is written: the list, and what all its parts share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ridgeline_backends.neuron.builders.architecture import DecoderArchitecture
from ridgeline_backends.neuron.builders.listing import Listing, given, weight
from ridgeline_backends.neuron.builders.rules import LibraryRules
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.operations import LayerNorm, RMSNorm
from ridgeline_backends.neuron.operations.attention import AttentionKernel
from ridgeline_backends.neuron.program import Buffer, BufferKind, ElementType, Form


class Phase(StrEnum):
    """What a decoder's program is for. PROMPT_SCORING is context encoding that gives the logits of
    every position, not of the last alone; CHUNKED_PREFILL encodes a part of a prompt, which sees
    the parts before it in the cache."""

    CONTEXT_ENCODING = "context_encoding"
    CHUNKED_PREFILL = "chunked_prefill"
    TOKEN_GENERATION = "token_generation"  # noqa: S105  no password
    PROMPT_SCORING = "prompt_scoring"


def kv_slots(config: NeuronConfig) -> int:
    """Sequences whose KV is kept."""
    return max(config.decode_batch, config.ctx_batch_size)


def attention_kernel(config: NeuronConfig, phase: Phase, rules: LibraryRules) -> AttentionKernel:
    """How scores are computed."""
    if phase is Phase.TOKEN_GENERATION:
        return "flash" if config.attn_tkg_nki_kernel_enabled else "plain"
    if phase is Phase.CHUNKED_PREFILL:
        return "plain"
    return "flash" if config.attn_kernel_enabled else rules.prefill_kernel


@dataclass(frozen=True, slots=True)
class Site:
    """Where a layer's operations are written, and what all of them share."""

    out: Listing
    model: DecoderArchitecture
    config: NeuronConfig
    rules: LibraryRules
    phase: Phase
    bucket: int
    batch: int
    length: int
    positions: Buffer
    slots: Buffer
    tables: tuple[tuple[Buffer, Buffer], ...]

    @property
    def cores(self) -> int:
        return self.config.tp_degree

    @property
    def rank(self) -> Buffer:
        """Which core this is."""
        return given("rank", 1)

    @property
    def dtype(self) -> ElementType:
        return self.config.torch_dtype

    @property
    def decoding(self) -> bool:
        return self.phase is Phase.TOKEN_GENERATION

    @property
    def cached_keys(self) -> int | None:
        """How many entries of the cache are read; None: the keys are this call's own."""
        if self.phase is Phase.CHUNKED_PREFILL:
            return self.config.seq_len
        return self.bucket if self.decoding else None

    @property
    def kernel(self) -> AttentionKernel:
        return attention_kernel(self.config, self.phase, self.rules)

    def name(self, suffix: str) -> str:
        return self.out.scoped(suffix)

    def matrix(self, suffix: str, rows: int, columns: int, *, whole: bool = False) -> Buffer:
        """A matrix of this layer, in the type of quantised ones unless it is to stay `whole`."""
        dtype = self.dtype if whole else self.config.weight_dtype
        return weight(self.name(suffix), rows, columns, dtype=dtype)

    def vector(self, suffix: str, size: int) -> Buffer:
        return weight(self.name(suffix), size, dtype=ElementType.FP32)

    def linear(
        self,
        x: Buffer,
        suffix: str,
        rows: int,
        *,
        to: str,
        bias: bool = False,
        whole: bool = False,
        joined: int = 1,
    ) -> Buffer:
        """By a matrix [rows, x's width] of this layer, with its scales if it is quantised."""
        matrix = self.matrix(suffix, rows, x.shape[-1], whole=whole)
        scale = None
        if self.config.quantized and not whole:
            scale = self.vector(f"{suffix}_scale", rows)
        added = self.vector(f"{suffix}_bias", rows) if bias else None
        return self.out.linear(x, matrix, to=to, bias=added, scale=scale, joined=joined)

    def normed(self, x: Buffer, suffix: str, *, to: str) -> Buffer:
        size = x.shape[-1]
        if not self.model.layer_norm:
            kind = RMSNorm(self.model.norm_eps)
            return self.out.add(kind, x, self.vector(suffix, size), to=to)
        vectors = self.vector(suffix, size), self.vector(f"{suffix}_bias", size)
        return self.out.add(LayerNorm(self.model.norm_eps), x, *vectors, to=to)

    def cache(self, suffix: str, heads: int, dim: int, *, kept: int | None = None) -> Buffer:
        """Of every position, or of `kept` of them."""
        entries = min(kept or self.config.seq_len, self.config.seq_len)
        shape = (kv_slots(self.config), heads, entries, dim)
        return Buffer(self.name(suffix), Form(shape, self.config.kv_dtype), BufferKind.KV)

    def summed(self, x: Buffer, *, to: str) -> Buffer:
        """The cores' parts of a sum, joined. Where the sequence is parallel, each keeps its part of
        the positions."""
        if self.sequence_parallel:
            return self.out.reduce_scatter(x, axis=1, to=to)
        return self.out.all_reduce(x, to=to)

    def whole(self, x: Buffer, *, to: str) -> Buffer:
        """All positions, where the sequence is parallel."""
        return self.out.all_gather(x, axis=1, to=to) if self.sequence_parallel else x

    @property
    def sequence_parallel(self) -> bool:
        wanted = self.config.sequence_parallel_enabled and not self.decoding
        return wanted and self.cores > 1 and self.length % self.cores == 0
