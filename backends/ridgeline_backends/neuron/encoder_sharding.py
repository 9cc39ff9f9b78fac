"""A text encoder's weights, cut for the cores of a tensor-parallel group.

Names are those of the program's buffers, with the layer filled in. What heads and columns are
filled up with is zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ridgeline_backends.models.encoder import distance_bias
from ridgeline_backends.models.encoder_config import EncoderConfig
from ridgeline_backends.models.encoder_weights import Affine, EncoderWeights
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.execute.memory import stored
from ridgeline_backends.neuron.partition import KVRule, plan_heads
from ridgeline_backends.neuron.sharding import Parts, by_columns, by_heads, by_rows


class EncoderShards:
    """Cuts `weights` when asked for a name; each name but those of distances once, while the
    checkpoint is open."""

    def __init__(self, model: EncoderConfig, config: NeuronConfig, weights: EncoderWeights) -> None:
        self._cores = config.tp_degree
        self._dtype = config.torch_dtype
        self._weights = weights
        self._heads = plan_heads(model.heads, model.heads, self._cores, KVRule.REPLICATED_HEADS)
        self._width = model.hidden // model.heads
        self._distances = weights.distances()
        self._ready: dict[str, Parts] = {}

    def __call__(self, name: str) -> Parts:
        """The parts of a weight. Raises `MissingTensor` and `MismatchedTensor`."""
        if name.startswith("distances."):
            return self._bias(int(name.rpartition(".")[2]))
        if name not in self._ready:
            section, _, rest = name.partition(".")
            if section == "layers":
                self._layer(int(rest.partition(".")[0]))
            else:
                {"embedding": self._embedding, "head": self._head}[section]()
        return self._ready.pop(name)

    def _embedding(self) -> None:
        read = self._weights
        tables = {"words": read.words(), "positions": read.positions(), "types": read.types()}
        for name, table in tables.items():
            self._ready[f"embedding.{name}"] = self._same(table)
        self._norm("embedding.norm", read.norm())

    def _head(self) -> None:
        for name, layer in zip(("head.first", "head.last"), self._weights.head(), strict=True):
            self._ready[name] = self._same(layer.weight)
            self._ready[f"{name}_bias"] = [layer.bias] * self._cores

    def _layer(self, index: int) -> None:
        layer, at = self._weights.layer(index), f"layers.{index}"
        qkv, out, up, down = layer.qkv, layer.attention_out, layer.up, layer.down
        matrices = _fused([self._by_heads(part) for part in qkv.weight.chunk(3)])
        biases = _fused([self._by_heads(part) for part in qkv.bias.chunk(3)])
        self._cut(f"{at}.attention.qkv", matrices, biases)
        self._cut(f"{at}.attention.out", self._by_heads(out.weight, 1), [out.bias] * self._cores)
        self._norm(f"{at}.attention.norm", layer.attention_norm)
        rows = by_rows(up.weight, self._cores)
        self._cut(f"{at}.mlp.up", rows, by_rows(up.bias, self._cores))
        columns = by_columns(down.weight, self._cores)
        self._cut(f"{at}.mlp.out", columns, [down.bias] * self._cores)
        self._norm(f"{at}.mlp.norm", layer.norm)

    def _cut(self, name: str, matrices: Parts, biases: Parts) -> None:
        self._ready[name] = [stored(one, self._dtype).contiguous() for one in matrices]
        self._ready[f"{name}_bias"] = biases

    def _norm(self, name: str, norm: Affine) -> None:
        self._ready[name] = [norm.weight] * self._cores
        self._ready[f"{name}_bias"] = [norm.bias] * self._cores

    def _same(self, whole: Tensor) -> Parts:
        return [stored(whole, self._dtype)] * self._cores

    def _by_heads(self, whole: Tensor, axis: int = 0) -> Parts:
        return by_heads(whole, self._heads.queries, self._width, axis)

    def _bias(self, length: int) -> Parts:
        """What attention adds by distance to the scores of each core's heads."""
        assert self._distances is not None, "the program is of a model with distances"
        bias = distance_bias(self._distances, length)
        own = by_heads(bias, self._heads.queries, 1, 0)
        return [stored(part, self._dtype)[None] for part in own]


def _fused(parts: list[Parts]) -> Parts:
    """One below the other, on each core."""
    return [torch.cat(own) for own in zip(*parts, strict=True)]
