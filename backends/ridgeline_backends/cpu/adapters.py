"""LoRA adapters beside the matrices of a decoder, for the rows of those sequences that use them.

A row's bits depend on its own adapter alone: all adapters have matrices of one size (a smaller rank
is filled up with zeros, which add nothing), multiplied in a form that was tried on that size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.base import Chunk
from ridgeline_backends.cpu.linear import Linear, choose_form
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.decoder import Adapt
from ridgeline_backends.models.lora import Adapter

_Layers = tuple[dict[str, tuple[Linear, Linear]], ...]


class AttachedAdapters:
    """Used by the runner's thread. `max_rank` as given to `read_adapter`."""

    def __init__(self, config: DecoderConfig, max_rank: int) -> None:
        self._shapes = config.adapter_shapes(max_rank)
        self._layers: dict[str, _Layers] = {}

    def attach(self, adapter: Adapter) -> None:
        multiplied = [
            shape
            for rows, columns, rank in self._shapes.values()
            for shape in ((rank, columns), (rows, rank))
        ]
        _, form = choose_form(multiplied, torch.float32)

        def pair(target: str, a: Tensor, b: Tensor) -> tuple[Linear, Linear]:
            missing = self._shapes[target][2] - a.shape[0]
            return form(F.pad(a, (0, 0, 0, missing))), form(F.pad(b, (0, missing)))

        self._layers[adapter.name] = tuple(
            {target: pair(target, a, b) for target, (a, b) in layer.items()}
            for layer in adapter.layers
        )

    def detach(self, name: str) -> None:
        del self._layers[name]

    def of(self, chunks: Sequence[Chunk]) -> Adapt:
        """What a step's chunks want."""
        rows: dict[str, list[int]] = {}
        begin = 0
        for chunk in chunks:
            end = begin + len(chunk.tokens)
            if chunk.adapter is not None:
                rows.setdefault(chunk.adapter, []).extend(range(begin, end))
            begin = end
        return _Rows([(torch.tensor(own), self._layers[name]) for name, own in rows.items()])


@dataclass(frozen=True, slots=True)
class _Rows:
    groups: list[tuple[Tensor, _Layers]]

    def __call__(self, layer: int, target: str, x: Tensor, out: Tensor) -> Tensor:
        for rows, layers in self.groups:
            pair = layers[layer].get(target)
            if pair is not None:
                a, b = pair
                out.index_add_(0, rows, b(a(x.index_select(0, rows))))
        return out
