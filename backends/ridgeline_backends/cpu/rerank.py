"""Scores pairs of texts with a cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ridgeline_backends.base import Artifact
from ridgeline_backends.cpu.encoding import CpuEncoder
from ridgeline_backends.encoding import RerankRunner, TokenPair
from ridgeline_backends.models.encoder import EncoderInput
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.sentence_files import last_function


class CpuRerankRunner(RerankRunner):
    """An encoder with a head for pairs."""

    def __init__(self, artifact: Artifact) -> None:
        self._finish = last_function(read_json(artifact.model_dir / "config.json"))
        self._encoder = CpuEncoder(artifact)

    @property
    def max_model_len(self) -> int:
        return self._encoder.max_model_len

    def score(self, pairs: Sequence[TokenPair]) -> list[float]:
        inputs = [EncoderInput(pair.token_ids, pair.type_ids) for pair in pairs]
        return self._encoder.each(inputs, self._judge)

    def _judge(self, hidden: Tensor) -> float:
        assert self._encoder.head is not None, "the plan is of a model with a head"
        return self._finish(self._encoder.head(hidden))
