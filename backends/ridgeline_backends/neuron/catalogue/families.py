"""What a config.json says of its model beside sizes: does it write on, or read texts as a whole;
and is its MLP gated. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from ridgeline_backends.errors import BackendError
from ridgeline_backends.neuron.builders.spellings import SECTIONS, with_left_out
from ridgeline_backends.neuron.builders.text_encoder_configs import text_encoder

_READERS = {
    "bert", "bert-generation", "big_bird", "data2vec-text", "ernie", "eurobert", "gte", "jina_bert",
    "megatron-bert", "neobert", "new", "nomic_bert", "rembert", "roberta-prelayernorm", "roc_bert",
    "roformer", "xlm-roberta-xl", "xmod", "zuna",
}  # fmt: skip
"""Encoders by type that nothing else in their configs tells from decoders."""

_GATED_READERS = {"eurobert", "gte", "modernbert", "neobert", "new", "nomic_bert", "zuna"}
"""Encoders by type whose MLPs have three matrices whatever their configs name."""

_GATES = ("feed_forward_proj", "feed_forward_type", "hidden_act", "activation_function")
"""Settings that name a gated activation: "gated-gelu", "geglu", "swiglu"."""


def own_settings(config: Mapping[str, object]) -> Mapping[str, object]:
    """Of the part that reads or writes text, where a model has parts for images or sound too; what
    it does not say itself the whole model does, but for the sections of its other parts."""
    for name in SECTIONS:
        part = config.get(name)
        if isinstance(part, Mapping) and part:
            whole = {key: one for key, one in config.items() if not isinstance(one, Mapping)}
            return {**whole, **with_left_out(part)}
    return config


def is_decoder(config: Mapping[str, object]) -> bool:
    """Whether every token sees those before it alone, and one follows after the other. A type that
    nobody knows counts as one: such are most models there are."""
    settings = own_settings(config)
    if config.get("is_encoder_decoder") is True:
        return False
    if settings.get("use_bidirectional_attention") is True:
        return False
    names = config.get("architectures")
    if isinstance(names, list) and any(str(name).endswith("ForMaskedLM") for name in names):
        return False
    if str(settings.get("model_type")) in _READERS:
        return False
    try:
        return text_encoder(config) is None
    except BackendError:  # an encoder that is not executed, or not by these sizes
        return False


def reads_gated(config: Mapping[str, object]) -> bool:
    """Whether an encoder's MLP has a third matrix, whose product gates the first's."""
    settings = own_settings(config)
    named = " ".join(str(settings.get(name, "")) for name in _GATES).lower()
    return str(settings.get("model_type")) in _GATED_READERS or "gated" in named or "glu" in named
