"""Any model's config.json, told apart: what a text encoder is made of, and what is neither that nor
a decoder. Imports no torch.

More is read than is executed: a model with a head of its own stands as its body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ridgeline_backends.errors import UnsupportedModel
from ridgeline_backends.models.encoder_config import (
    ENCODER_ARCHITECTURES,
    EncoderConfig,
    encoder_config,
    scores_pairs,
)
from ridgeline_backends.models.encoder_families import RERANK_FAMILIES

_BODIES = {
    "bert": "BertModel",
    "camembert": "RobertaModel",
    "distilbert": "DistilBertModel",
    "mpnet": "MPNetModel",
    "roberta": "RobertaModel",
    "xlm-roberta": "XLMRobertaModel",
}
"""The architecture that computes a model type's hidden states."""

_NEITHER = {
    "albert", "bart", "clip", "convbert", "deberta", "deberta-v2", "electra", "funnel", "marian",
    "mbart", "modernbert", "mt5", "nomic_bert", "nystromformer", "pegasus", "siglip", "squeezebert",
    "t5", "vit", "wav2vec2", "whisper", "xlnet",
}  # fmt: skip
"""Model types whose sizes would be taken for a decoder's."""


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """`stands_for`: what of the model this leaves out, as "BertForMaskedLM is taken as ..."; ""
    where it is the whole model."""

    config: EncoderConfig
    stands_for: str


def text_encoder(config: Mapping[str, object]) -> TextEncoder | None:
    """None for a decoder. Raises `InvalidModel`, and `UnsupportedModel` for what is neither."""
    listed = config.get("architectures")
    names = [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []
    for name in names:
        if name in ENCODER_ARCHITECTURES and (name not in RERANK_FAMILIES or scores_pairs(config)):
            return TextEncoder(encoder_config(config, name), "")
    kind = str(config.get("model_type", ""))
    if kind in _NEITHER:
        raise UnsupportedModel(
            f"Models of type {kind} are neither decoders nor encoders that are compiled.",
            hint=f"Encoders of type {', '.join(_BODIES)} are.",
        )
    body = _BODIES.get(kind)
    if body is None:
        return None
    left_out = f"{names[0]} is taken as {body}, without its own head" if names else ""
    return TextEncoder(encoder_config(config, body), left_out)
