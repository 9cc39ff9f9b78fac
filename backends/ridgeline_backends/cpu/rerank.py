"""Scores pairs of texts with a cross-encoder.

The model's own files may name the last function (sentence-transformers' activation); else it is
the logistic one, as sentence-transformers has it for models with one label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from ridgeline_backends.base import Artifact, RerankRunner, TokenPair
from ridgeline_backends.cpu.encoding import CpuEncoder
from ridgeline_backends.errors import UnsupportedModel
from ridgeline_backends.models.encoder import EncoderInput
from ridgeline_backends.models.reader import Reader, read_json


class CpuRerankRunner(RerankRunner):
    """An encoder with a head for pairs."""

    def __init__(self, artifact: Artifact) -> None:
        self._finish = _activation(read_json(artifact.model_dir / "config.json"))
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


def _activation(config: Mapping[str, object]) -> Callable[[float], float]:
    section = Reader(config).section("sentence_transformers")
    named = section.get("activation_fn") or config.get("sbert_ce_default_activation_function")
    kind = str(named or "Sigmoid").rpartition(".")[2]
    if kind == "Sigmoid":
        return _logistic
    if kind == "Identity":
        return lambda value: value
    raise UnsupportedModel(
        f"activation_fn = {named!r} is not supported.", hint="Supported: Sigmoid and Identity."
    )


def _logistic(value: float) -> float:
    # Of the two forms, the one whose power cannot overflow.
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))
