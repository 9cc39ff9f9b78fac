"""LoRA adapters beside the matrices of a decoder, for the rows of those sequences that use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ridgeline_backends.base import Chunk
from ridgeline_backends.models.decoder import Adapt, Linear
from ridgeline_backends.models.lora import Adapter

MakePair = Callable[[str, Tensor, Tensor], tuple[Linear, Linear]]
"""From a target's name, its A [rank, in] and its B [out, rank]."""

_CPU = torch.device("cpu")
_Layers = tuple[dict[str, tuple[Linear, Linear]], ...]


class AttachedAdapters:
    """Used by the runner's thread. How A and B are multiplied, and so whether a row's bits depend
    on its own adapter alone, is `make_pair`'s affair."""

    def __init__(self, make_pair: MakePair, device: torch.device = _CPU) -> None:
        self._make_pair = make_pair
        self._device = device
        self._layers: dict[str, _Layers] = {}

    def attach(self, adapter: Adapter) -> None:
        self._layers[adapter.name] = tuple(
            {target: self._make_pair(target, a, b) for target, (a, b) in layer.items()}
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
