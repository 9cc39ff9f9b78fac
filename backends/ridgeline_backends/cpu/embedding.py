"""Embeds token sequences with an encoder, as the model's sentence-transformers files say.

`1_Pooling/config.json`: the mean of the hidden states, which is the default, or the first one.
`modules.json`: without a Normalize module vectors keep their length; with a module that nothing
here computes the model is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.base import Artifact, EmbeddingRunner
from ridgeline_backends.cpu.encoding import CpuEncoder
from ridgeline_backends.errors import UnsupportedModel
from ridgeline_backends.models.encoder import EncoderInput
from ridgeline_backends.models.reader import read_json, read_json_list

Pool = Callable[[Tensor], Tensor]

_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}


class CpuEmbeddingRunner(EmbeddingRunner):
    """An encoder with its pooling."""

    def __init__(self, artifact: Artifact) -> None:
        self._pool = _pooling(artifact.model_dir)
        self._normalise = _normalises(artifact.model_dir)
        self._encoder = CpuEncoder(artifact)

    @property
    def max_model_len(self) -> int:
        return self._encoder.max_model_len

    @property
    def dimensions(self) -> int:
        return self._encoder.dimensions

    def embed(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        return self._encoder.each([EncoderInput(tokens) for tokens in token_ids], self._vector)

    def _vector(self, hidden: Tensor) -> list[float]:
        pooled = self._pool(hidden)
        values: list[float] = (F.normalize(pooled, dim=-1) if self._normalise else pooled).tolist()
        return values


def _pooling(model_dir: Path) -> Pool:
    path = model_dir / "1_Pooling" / "config.json"
    if not path.is_file():
        return _mean
    config = read_json(path)
    asked = {name for name, on in config.items() if name.startswith("pooling_mode_") and on}
    mode = config.get("pooling_mode")
    if asked == {"pooling_mode_mean_tokens"} or mode == "mean":
        return _mean
    if asked == {"pooling_mode_cls_token"} or mode == "cls":
        return _first
    raise UnsupportedModel(
        f"Pooling {mode or ', '.join(sorted(asked)) or 'none'} is not supported.",
        hint="Supported: pooling_mode_mean_tokens or pooling_mode_cls_token alone.",
    )


def _normalises(model_dir: Path) -> bool:
    """Whether vectors get unit length; yes for a model without sentence-transformers files."""
    path = model_dir / "modules.json"
    if not path.is_file():
        return True
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in read_json_list(path)]
    strange = [kind for kind in kinds if kind not in _KNOWN_MODULES]
    if strange:
        raise UnsupportedModel(
            f"modules.json asks for {', '.join(strange)}, which is not supported.",
            hint=f"Supported: {', '.join(sorted(_KNOWN_MODULES))}.",
        )
    return "Normalize" in kinds


def _mean(hidden: Tensor) -> Tensor:
    return hidden.mean(0)


def _first(hidden: Tensor) -> Tensor:
    return hidden[0]
