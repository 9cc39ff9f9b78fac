"""Embeds token sequences with an encoder, as the model's sentence-transformers files say."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.base import Artifact
from ridgeline_backends.cpu.encoding import CpuEncoder
from ridgeline_backends.encoding import EmbeddingRunner
from ridgeline_backends.models.encoder import EncoderInput
from ridgeline_backends.models.sentence_files import read_pooling


class CpuEmbeddingRunner(EmbeddingRunner):
    """An encoder with its pooling."""

    def __init__(self, artifact: Artifact) -> None:
        self._pooling = read_pooling(artifact.model_dir)
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
        pooled = hidden.mean(0) if self._pooling.mean else hidden[0]
        unit = F.normalize(pooled, dim=-1) if self._pooling.normalised else pooled
        values: list[float] = unit.tolist()
        return values
