"""A decoder in torch's own operations: what runs where the native kernels do not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ridgeline_backends.base import Chunk
from ridgeline_backends.cpu.adapters import make_pairs
from ridgeline_backends.cpu.attention import AttentionRule, KVCache, StepAttention
from ridgeline_backends.cpu.linear import choose_form, has_bf16
from ridgeline_backends.models.adapted_rows import AttachedAdapters
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.decoder import Decoder, DecoderWeights
from ridgeline_backends.models.lora import Adapter


class PlainDecoder:
    """A `Program`. `linear_form` says how its matrices are multiplied."""

    def __init__(
        self,
        config: DecoderConfig,
        weights: DecoderWeights,
        *,
        stored: torch.dtype,
        blocks: int,
        block_size: int,
        max_positions: int,
        max_rank: int,
    ) -> None:
        shapes = [*config.linear_shapes.values(), (config.vocab_size, config.hidden)]
        self.linear_form, form = choose_form(shapes, stored if has_bf16() else torch.float32)
        self._model = Decoder(
            config,
            weights,
            # Through the stored type first: fp32 weights served as bf16 are rounded.
            lambda weight: form(weight.to(stored)),
            table_dtype=stored,
            max_positions=max_positions,
        )
        self._cache = KVCache(
            config.layers, config.kv_heads, config.head_dim, blocks, block_size, stored
        )
        self._rule = AttentionRule(config.attention_scale, config.windows, config.attention_softcap)
        self._adapters = AttachedAdapters(make_pairs(config, max_rank))

    def forward(self, chunks: Sequence[Chunk], wanted: Sequence[int]) -> Tensor:
        tokens: list[int] = []
        positions: list[int] = []
        for chunk in chunks:
            tokens.extend(chunk.tokens)
            positions.extend(range(chunk.start, chunk.start + len(chunk.tokens)))
        return self._model.forward(
            torch.tensor(tokens),
            torch.tensor(positions),
            StepAttention(self._cache, tuple(chunks), self._rule),
            torch.tensor(wanted, dtype=torch.int64),
            self._adapters.of(chunks),
        )

    def attach(self, adapter: Adapter) -> None:
        self._adapters.attach(adapter)

    def detach(self, name: str) -> None:
        self._adapters.detach(name)
