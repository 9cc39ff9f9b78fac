"""A decoder on the native kernels: packed weights, KV memory, and one C call per step."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof, c_void_p
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from ridgeline_backends.base import Chunk, LoadSpec
from ridgeline_backends.cpu.kernels import library as c
from ridgeline_backends.cpu.kernels.packing import PackedMatrix, address, interleave, pack, round_up
from ridgeline_backends.cpu.pages import Arena, zeros_on_demand
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.decoder import DecoderWeights, LayerWeights
from ridgeline_backends.models.lora import Adapter
from ridgeline_backends.models.rope import rope_tables

_MAX_GROUP = 48
_MAX_DIM = 512
_ALIGNMENT = 64


def supports(config: DecoderConfig, spec: LoadSpec) -> bool:
    """Whether the kernels run a model of this shape; the torch path runs what they do not."""
    ranks = (rank for _, _, rank in config.adapter_shapes(spec.max_adapter_rank).values())
    return (
        config.head_groups <= _MAX_GROUP
        and config.head_dim <= _MAX_DIM
        and spec.block_size % c.PANEL == 0
        and (not spec.max_adapters or round_up(max(ranks)) <= c.MAX_RANK)
    )


class NativeDecoder:
    """A `Program`. `weights` is read once and not kept. `dtype` is that of matrices (float32,
    bfloat16 or int8), `stored` that of tables and KV."""

    def __init__(
        self,
        kernels: c.Library,
        config: DecoderConfig,
        weights: DecoderWeights,
        *,
        dtype: torch.dtype,
        stored: torch.dtype,
        blocks: int,
        block_size: int,
        max_positions: int,
        threads: int,
    ) -> None:
        self._kernels = kernels
        self._config = config
        self._threads = threads
        self._arena = Arena()
        self._keep: list[Tensor] = []
        ropes = [
            self._halves(rope_tables(r, config.rotary_dim, max_positions)) for r in config.ropes
        ]
        layer_kv = (
            2 * config.kv_heads * round_up(config.head_dim, c.PANEL) * block_size * stored.itemsize
        )
        self._kv = zeros_on_demand(blocks * config.layers * layer_kv, huge_pages=True)
        layers = (c.Layer * config.layers)()
        for index, layer in enumerate(weights.layers()):
            cos, sin = ropes[config.layer_rope[index]]
            layers[index] = c.Layer(
                attention_norm=self._vector(layer.attention_norm),
                post_attention_norm=self._vector(layer.post_attention_norm),
                mlp_norm=self._vector(layer.mlp_norm),
                post_mlp_norm=self._vector(layer.post_mlp_norm),
                q_norm=self._vector(layer.q_norm),
                k_norm=self._vector(layer.k_norm),
                **self._matrices(layer, dtype, stored),
                cos=cos,
                sin=sin,
                kv=self._kv.data_ptr() + index * layer_kv,
                window=config.windows[index] or 0,
            )
        embedding = self._matrix(weights.embedding, stored, stored)
        head = embedding
        if weights.head is not weights.embedding or dtype is not stored:
            head = self._matrix(weights.head, dtype, stored)
        self._model = c.Model(
            hidden=config.hidden,
            layers=config.layers,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            rotary_dim=config.rotary_dim,
            intermediate=config.intermediate,
            vocab=config.vocab_size,
            activation=c.SILU if config.activation == "silu" else c.GELU_TANH,
            kv_type=c.BF16 if stored is torch.bfloat16 else c.F32,
            block_size=block_size,
            kv_stride=config.layers * layer_kv,
            norm_eps=config.norm_eps,
            attention_scale=config.attention_scale,
            attention_softcap=config.attention_softcap or 0.0,
            final_softcap=config.final_softcap or 0.0,
            embedding_scale=config.embedding_scale,
            layer=layers,
            norm=self._vector(weights.norm),
            head=head,
            embedding=embedding,
        )
        self._adapters: dict[str, _AttachedAdapter] = {}
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._scratch_room = (0, False)
        self._logits = torch.empty(0)

    def forward(self, chunks: Sequence[Chunk], wanted: Sequence[int]) -> Tensor:
        rows = sum(len(chunk.tokens) for chunk in chunks)
        tokens = np.fromiter(chain.from_iterable(chunk.tokens for chunk in chunks), np.int32, rows)
        table = np.fromiter(chain.from_iterable(chunk.blocks for chunk in chunks), np.int32)
        wanted_rows = np.asarray(wanted, np.int32)
        names = list(dict.fromkeys(chunk.adapter for chunk in chunks if chunk.adapter is not None))
        pairs = (c_void_p * len(names))(*(self._adapters[name].address for name in names))
        described = (c.Chunk * len(chunks))()
        row = block = 0
        for entry, chunk in zip(described, chunks, strict=True):
            entry.first_row, entry.rows, entry.start = row, len(chunk.tokens), chunk.start
            entry.first_block = block
            entry.adapter = -1 if chunk.adapter is None else names.index(chunk.adapter)
            row += len(chunk.tokens)
            block += len(chunk.blocks)
        logits = self._logits_of(len(wanted))
        step = c.Step(
            rows=rows,
            chunks=len(chunks),
            wanted=len(wanted),
            threads=self._threads,
            tokens=tokens.ctypes.data,
            chunk=addressof(described),
            block_table=table.ctypes.data,
            wanted_row=wanted_rows.ctypes.data,
            logits=logits.data_ptr(),
            adapter=addressof(pairs) if names else None,
            scratch=self._scratch_for(rows, adapters=bool(names)),
        )
        self._kernels.forward(self._model, step)
        return logits[:, : self._config.vocab_size]

    def attach(self, adapter: Adapter) -> None:
        self._adapters[adapter.name] = _AttachedAdapter(adapter)

    def detach(self, name: str) -> None:
        del self._adapters[name]

    def _logits_of(self, rows: int) -> Tensor:
        width = round_up(self._config.vocab_size)
        if self._logits.numel() < rows * width:
            self._logits = torch.empty(rows * width)
        return self._logits[: rows * width].view(rows, width)

    def _scratch_for(self, rows: int, *, adapters: bool) -> int:
        """An aligned address of enough memory for a step of so many rows."""
        most, wide = self._scratch_room
        if rows > most or adapters > wide:
            self._scratch_room = most, wide = max(rows, most), adapters or wide
            size = self._kernels.scratch_bytes(self._model, most, self._threads, adapters=wide)
            self._scratch = torch.empty(size + _ALIGNMENT, dtype=torch.uint8)
        return -(-self._scratch.data_ptr() // _ALIGNMENT) * _ALIGNMENT

    def _matrices(
        self, layer: LayerWeights, dtype: torch.dtype, stored: torch.dtype
    ) -> dict[str, c.Matrix]:
        return {
            "qkv": self._matrix(layer.qkv, dtype, stored, layer.qkv_bias),
            "o": self._matrix(layer.o, dtype, stored, layer.o_bias),
            "gate_up": self._matrix(interleave(layer.gate_up), dtype, stored),
            "down": self._matrix(layer.down, dtype, stored),
        }

    def _matrix(
        self, weight: Tensor, dtype: torch.dtype, stored: torch.dtype, bias: Tensor | None = None
    ) -> c.Matrix:
        # Through the stored type first: fp32 weights served as bf16 are rounded.
        packed: PackedMatrix = pack(
            weight.to(stored), dtype, bias, int8=self._kernels.int8, keep=self._arena.store
        )
        self._keep.extend(packed.tensors())
        return packed.struct()

    def _vector(self, values: Tensor | None) -> int | None:
        if values is not None:
            values = values.contiguous()
            self._keep.append(values)
        return address(values)

    def _halves(self, tables: tuple[Tensor, Tensor]) -> tuple[int | None, int | None]:
        """One angle per pair: the kernels know the signs."""
        half = self._config.rotary_dim // 2
        cos, sin = tables
        return self._vector(cos[:, half:].contiguous()), self._vector(sin[:, half:].contiguous())


class _AttachedAdapter:
    """An adapter's matrices, packed, and the structs that a step refers to."""

    def __init__(self, adapter: Adapter) -> None:
        self._keep: list[Tensor] = []
        self._pairs = (c.LowRank * (len(adapter.layers) * len(c.TARGETS)))()
        places = ((layer, target) for layer in adapter.layers for target in c.TARGETS)
        for entry, (layer, target) in zip(self._pairs, places, strict=True):
            if target in layer:
                a, b = layer[target]
                entry.down = self._matrix(a)
                entry.up = self._matrix(interleave(b) if target == "gate_up" else b)

    @property
    def address(self) -> int:
        return addressof(self._pairs)

    def _matrix(self, weight: Tensor) -> c.Matrix:
        packed = pack(weight, torch.float32)
        self._keep.extend(packed.tensors())
        return packed.struct()
