"""A decoder, or one process's part of it, with its KV memory on one device.

Steps in which every sequence has one token are padded to a bucket and played from a recording; all
others are issued operation by operation. Knows no sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ridgeline_backends.base import Chunk, Dtype, Plan
from ridgeline_backends.cuda.attention import PagedKV, Rule, choose_attention
from ridgeline_backends.cuda.batch import Batch, Shape, numbers, view
from ridgeline_backends.cuda.graphs import Recorder, Repeated, Replayed, Work, buckets
from ridgeline_backends.cuda.group import Group
from ridgeline_backends.cuda.linear import fixed_rows
from ridgeline_backends.cuda.plan import shard_config
from ridgeline_backends.cuda.shards import shard_head, shard_layer
from ridgeline_backends.models.adapted_rows import AttachedAdapters
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.decoder import (
    Decoder,
    DecoderWeights,
    LayerWeights,
    Linear,
    read_decoder,
)
from ridgeline_backends.models.lora import Adapter
from ridgeline_backends.models.weights import Weights


class DeviceDecoder:
    """Used by one thread, within `torch.inference_mode`."""

    def __init__(
        self,
        model_dir: Path,
        config: DecoderConfig,
        plan: Plan,
        device: torch.device,
        *,
        group: Group | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        spec = plan.spec
        dtype = torch.bfloat16 if plan.dtype is Dtype.BF16 else torch.float32
        self._device = device
        self._group = group
        self._vocabulary = config.vocab_size
        own = config if group is None else shard_config(config, group.size)
        with Weights(model_dir) as weights, torch.device(device):
            placed = _Placed(config, read_decoder(config, weights), dtype, device, group)
            self._model = Decoder(
                own,
                placed.weights,
                placed.linear,
                table_dtype=dtype,
                max_positions=plan.max_model_len,
            )
        self._cache = PagedKV(
            own, blocks=plan.kv_blocks, block_size=spec.block_size, dtype=dtype, device=device
        )
        self._rule = Rule.of(own)
        self._attention = choose_attention(own, spec.block_size, dtype, device)
        self._longest = plan.max_model_len
        self._width = -(-plan.max_model_len // spec.block_size)
        self._adapters = AttachedAdapters(
            lambda _, a, b: (fixed_rows(a.to(device)), fixed_rows(b.to(device))), device
        )
        if recorder is None:
            recorder = Replayed(device) if device.type == "cuda" else Repeated()
        self._recorder = recorder
        self._buckets = buckets(spec.max_num_seqs)
        self._recorded: dict[int, tuple[Tensor, Work]] = {}

    def forward(self, chunks: Sequence[Chunk], wanted: Sequence[int]) -> Tensor:
        """Write the KV of every token; float32 logits [len(wanted), vocabulary] of these rows. The
        next call may use the tensor's memory again."""
        if self._group is not None and self._group.rank == 0:
            self._group.lead(chunks, wanted)
        if all(len(chunk.tokens) == 1 and chunk.adapter is None for chunk in chunks):
            return self._decode(chunks)[self._indices(wanted)]
        return self._issue(chunks, wanted)

    def attach(self, adapter: Adapter) -> None:
        self._adapters.attach(adapter)

    def detach(self, name: str) -> None:
        self._adapters.detach(name)

    def _issue(self, chunks: Sequence[Chunk], wanted: Sequence[int]) -> Tensor:
        longest = max(chunk.start + len(chunk.tokens) for chunk in chunks)
        rows = sum(len(chunk.tokens) for chunk in chunks)
        shape = Shape(rows, len(chunks), -(-longest // self._cache.block_size))
        batch = view(
            self._numbers(chunks, shape).to(self._device),
            shape,
            longest_chunk=max(len(chunk.tokens) for chunk in chunks),
            longest=longest,
        )
        attend = self._attention(self._cache, self._rule, batch)
        logits = self._model.forward(
            batch.tokens,
            batch.positions,
            attend,
            self._indices(wanted),
            self._adapters.of(chunks),
        )
        return logits[:, : self._vocabulary]

    def _decode(self, chunks: Sequence[Chunk]) -> Tensor:
        """Logits of one row for each chunk, and of rows that nobody wants behind them."""
        size = next(size for size in self._buckets if size >= len(chunks))
        shape = Shape(size, size, self._width)
        sent = self._numbers(chunks, shape)
        if size in self._recorded:
            flat, work = self._recorded[size]
            flat.copy_(sent)
        else:
            flat = sent.to(self._device)
            work = self._recorder.record(lambda: self._all_rows(flat, shape))
            self._recorded[size] = flat, work
        return work()

    def _all_rows(self, flat: Tensor, shape: Shape) -> Tensor:
        batch: Batch = view(flat, shape, longest_chunk=1, longest=self._longest)
        attend = self._attention(self._cache, self._rule, batch)
        every = torch.arange(shape.rows, device=self._device)
        logits = self._model.forward(batch.tokens, batch.positions, attend, every)
        return logits[:, : self._vocabulary]

    def _numbers(self, chunks: Sequence[Chunk], shape: Shape) -> Tensor:
        cache = self._cache
        return torch.tensor(numbers(chunks, shape, cache.block_size, cache.spare))

    def _indices(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(rows, dtype=torch.int64, device=self._device)


class _Placed:
    """Weights on their way to a device, of one process of `group`, layer by layer."""

    def __init__(
        self,
        config: DecoderConfig,
        source: DecoderWeights,
        dtype: torch.dtype,
        device: torch.device,
        group: Group | None,
    ) -> None:
        self._config = config
        self._dtype = dtype
        self._device = device
        self._group = group
        self._layers = source.layers()
        self._summed: tuple[Tensor, ...] = ()
        # The decoder copies the embedding, so a tied head is a table of its own.
        head = source.head if group is None else shard_head(source.head, group.rank, group.size)
        self._head = head.to(device, dtype, copy=True)
        self.weights = replace(
            source,
            embedding=source.embedding.to(device),
            norm=source.norm.to(device),
            head=self._head,
            _read_layer=self._layer,
        )

    def linear(self, weight: Tensor) -> Linear:
        """A `MakeLinear`: what is split by columns is summed, the head is gathered."""
        group = self._group
        product = fixed_rows(weight)
        if group is None:
            return product
        if any(weight is one for one in self._summed):
            return lambda x: group.sum(product(x))
        if weight is self._head:
            return lambda x: group.gather(product(x))
        return product

    def _layer(self, index: int) -> LayerWeights:
        layer = next(self._layers)
        if self._group is not None:
            layer = shard_layer(layer, self._config, self._group.rank, self._group.size)
        placed = LayerWeights(
            attention_norm=layer.attention_norm.to(self._device),
            qkv=self._matrix(layer.qkv),
            qkv_bias=self._vector(layer.qkv_bias),
            q_norm=self._vector(layer.q_norm),
            k_norm=self._vector(layer.k_norm),
            o=self._matrix(layer.o),
            o_bias=self._vector(layer.o_bias),
            post_attention_norm=self._vector(layer.post_attention_norm),
            mlp_norm=layer.mlp_norm.to(self._device),
            gate_up=self._matrix(layer.gate_up),
            down=self._matrix(layer.down),
            post_mlp_norm=self._vector(layer.post_mlp_norm),
        )
        self._summed = placed.o, placed.down
        return placed

    def _matrix(self, matrix: Tensor) -> Tensor:
        # A copy of its own: it may lie in the mapped file, or be a view of a whole matrix.
        return matrix.to(self._device, self._dtype, copy=True).contiguous()

    def _vector(self, vector: Tensor | None) -> Tensor | None:
        return None if vector is None else vector.to(self._device)
