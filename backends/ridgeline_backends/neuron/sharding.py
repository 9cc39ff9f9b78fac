"""A decoder's weights, cut for the cores of a tensor-parallel group, one tensor at a time.

Names are those of the programs' buffers, with the layer filled in. What a head or a table is filled
up with is zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.decoder import DecoderWeights, LayerWeights
from ridgeline_backends.models.rope import rope_tables
from ridgeline_backends.neuron.builders.rules import LibraryRules
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.execute.memory import stored
from ridgeline_backends.neuron.partition import plan_heads, round_up
from ridgeline_backends.neuron.program import ElementType

Parts = list[Tensor]
"""One for each core; one and the same tensor where all cores hold all of it."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix as a checkpoint has it, and how to cut it: the part of each core."""

    whole: Tensor
    cut: Callable[[Tensor], Parts]
    rows: bool = True
    """Whether rows are cut, not columns."""


class DecoderShards:
    """Cuts `weights` when asked for a name. Layers are asked for in order, once each."""

    def __init__(
        self,
        model: DecoderConfig,
        config: NeuronConfig,
        rules: LibraryRules,
        weights: DecoderWeights,
    ) -> None:
        self._model = model
        self._config = config
        self._rules = rules
        self._weights = weights
        self._cores = config.tp_degree
        self._heads = plan_heads(model.heads, model.kv_heads, self._cores, rules.kv)
        self._layers = weights.layers()
        self._ready: dict[str, Parts] = {}
        self._next = 0

    def __call__(self, name: str) -> Parts:
        """The parts of a weight. Raises `MissingTensor` and `MismatchedTensor`."""
        if name.startswith("layers."):
            while name not in self._ready:
                self._cut_layer(self._next, next(self._layers))
                self._next += 1
            return self._ready.pop(name)
        if name.startswith("rope."):
            return self._rope(name)
        return {"embedding": self._embedding, "head": self._head, "norm": self._norm}[name]()

    def _embedding(self) -> Parts:
        table = self._weights.embedding
        cut = "vocabulary" if self._config.vocab_parallel else self._rules.embedding
        if cut == "vocabulary":
            return self._plain(by_rows(table, self._cores))
        if cut == "hidden" and not self._model.hidden % self._cores:
            return self._plain(list(table.chunk(self._cores, 1)))
        return self._same(table)

    def _head(self) -> Parts:
        return self._plain(by_rows(self._weights.head, self._cores))

    def _norm(self) -> Parts:
        return [self._weights.norm] * self._cores

    def _rope(self, name: str) -> Parts:
        _, index, table = name.split(".")
        rope = self._model.ropes[int(index)]
        tables = rope_tables(rope, self._model.rotary_dim, self._config.seq_len)
        return [tables[table == "sin"]] * self._cores

    def _cut_layer(self, index: int, layer: LayerWeights) -> None:
        model, heads = self._model, self._heads
        q, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
        names = ("q", "k", "v")
        picks = (heads.queries, heads.keys, heads.keys)
        matrices = {
            f"attention.{one}": Matrix(part, self._by_heads(pick, 0))
            for one, part, pick in zip(
                names, torch.split(layer.qkv, [q, kv, kv]), picks, strict=True
            )
        }
        matrices["attention.o"] = Matrix(layer.o, self._by_heads(heads.queries, 1), rows=False)
        gate, up = layer.gate_up.chunk(2)
        matrices["mlp.gate"] = Matrix(gate, lambda x: by_rows(x, self._cores))
        matrices["mlp.up"] = Matrix(up, lambda x: by_rows(x, self._cores))
        matrices["mlp.down"] = Matrix(layer.down, lambda x: by_columns(x, self._cores), rows=False)
        found: dict[str, Parts] = {}
        for name, matrix in matrices.items():
            found.update(self._matrix(name, matrix))
        if layer.qkv_bias is not None:
            biases = torch.split(layer.qkv_bias, [q, kv, kv])
            for one, part, pick in zip(names, biases, picks, strict=True):
                found[f"attention.{one}_bias"] = self._by_heads(pick, 0)(part)
        if self._config.fused_qkv:
            _fuse(found, ("attention.q", "attention.k", "attention.v"), "attention.qkv")
        _fuse(found, ("mlp.gate", "mlp.up"), "mlp.gate_up")
        vectors = {
            "attention_norm": layer.attention_norm,
            "mlp_norm": layer.mlp_norm,
            "attention.q_norm": layer.q_norm,
            "attention.k_norm": layer.k_norm,
            "post_attention_norm": layer.post_attention_norm,
            "post_mlp_norm": layer.post_mlp_norm,
            "attention.out_bias": layer.o_bias,
        }
        for name, vector in vectors.items():
            if vector is not None:
                found[name] = [vector.float()] * self._cores
        self._ready.update({f"layers.{index}.{name}": parts for name, parts in found.items()})

    def _matrix(self, name: str, matrix: Matrix) -> dict[str, Parts]:
        """The parts, with their scales where the model is to be quantised: of the whole matrix, so
        that cores sum numbers of one scale."""
        if not self._config.quantized:
            return {name: self._plain(matrix.cut(matrix.whole))}
        numbers, scale = quantise(
            matrix.whole.float(),
            self._config.quantization_dtype,
            per_row=self._config.quantization_type == "per_channel_symmetric",
        )
        scales = matrix.cut(scale) if matrix.rows else [scale] * self._cores
        numbers_of = [one.contiguous() for one in matrix.cut(numbers)]
        return {name: numbers_of, f"{name}_scale": scales}

    def _by_heads(
        self, picks: Sequence[Sequence[int | None]], axis: int
    ) -> Callable[[Tensor], Parts]:
        return lambda whole: by_heads(whole, picks, self._model.head_dim, axis)

    def _plain(self, parts: Parts) -> Parts:
        return [stored(part, self._config.torch_dtype).contiguous() for part in parts]

    def _same(self, whole: Tensor) -> Parts:
        return [stored(whole, self._config.torch_dtype)] * self._cores


def by_heads(whole: Tensor, picks: Sequence[Sequence[int | None]], size: int, axis: int) -> Parts:
    """Cut at heads, each of `size` rows or columns: each core's `picks`, zeros for None."""
    heads = torch.split(whole, size, axis)
    empty = torch.zeros_like(heads[0])
    return [
        torch.cat([empty if head is None else heads[head] for head in own], axis) for own in picks
    ]


def by_rows(whole: Tensor, parts: int) -> Parts:
    """Equal parts of the rows, the last filled up."""
    missing = round_up(whole.shape[0], parts) - whole.shape[0]
    padding = (0, 0) * (whole.dim() - 1) + (0, missing)
    return list(torch.nn.functional.pad(whole, padding).chunk(parts, 0))


def by_columns(whole: Tensor, parts: int) -> Parts:
    """Equal parts of the columns, the last filled up."""
    missing = round_up(whole.shape[1], parts) - whole.shape[1]
    return list(torch.nn.functional.pad(whole, (0, missing)).chunk(parts, 1))


def quantise(weight: Tensor, dtype: ElementType, *, per_row: bool) -> tuple[Tensor, Tensor]:
    """Numbers of `dtype` and scales [rows], all alike unless `per_row`: weight ~ scale * number."""
    largest = {ElementType.INT8: 127.0, ElementType.FP8_E4M3: 240.0}.get(dtype, 57344.0)
    peaks = weight.abs().amax(1) if per_row else weight.abs().amax().expand(len(weight))
    scale = (peaks / largest).clamp(min=torch.finfo(torch.float32).tiny)
    numbers = weight / scale[:, None]
    if dtype is ElementType.INT8:
        numbers = numbers.round().clamp(-largest, largest)
    return stored(numbers, dtype), scale


def _fuse(found: dict[str, Parts], parts: tuple[str, ...], whole: str) -> None:
    """Lay parts under each other, with their biases and scales."""
    for suffix in ("", "_bias", "_scale"):
        own = [found.pop(f"{part}{suffix}", None) for part in parts]
        present = [one for one in own if one is not None]
        if present:
            found[f"{whole}{suffix}"] = [
                torch.cat(list(cores)) for cores in zip(*present, strict=True)
            ]
