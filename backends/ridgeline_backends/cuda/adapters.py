"""LoRA adapters beside the matrices of a decoder, for the rows of those sequences that use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ridgeline_backends.base import Chunk
from ridgeline_backends.cuda.linear import fixed_rows
from ridgeline_backends.models.decoder import Adapt, Linear
from ridgeline_backends.models.lora import Adapter

_Layers = tuple[dict[str, tuple[Linear, Linear]], ...]


class AttachedAdapters:
    """Used by the runner's thread. Adapters are multiplied in float32."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._layers: dict[str, _Layers] = {}

    def attach(self, adapter: Adapter) -> None:
        self._layers[adapter.name] = tuple(
            {
                target: (fixed_rows(a.to(self._device)), fixed_rows(b.to(self._device)))
                for target, (a, b) in layer.items()
            }
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
        return _Rows(
            [
                (torch.tensor(own, device=self._device), self._layers[name])
                for name, own in rows.items()
            ]
        )


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
