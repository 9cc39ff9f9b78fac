"""The encoder families as data: what their tensors are called, and where they differ from BERT.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNames:
    """Tensors of one layer, without ".weight" and ".bias", below `EncoderFamily.layer`."""

    query: str
    key: str
    value: str
    attention_out: str
    attention_norm: str
    up: str
    down: str
    norm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFamily:
    """`prefix`: before every name, where the checkpoint is of a model with a head. `settings`:
    the config's own names for BERT's settings. `positions_after_padding`: positions start after
    the padding token's id. `head`: the linear layers of the classifier; `head_squash`: between
    them. `relative_positions`: attention has a bias by distance, shared by all layers."""

    prefix: str
    layer: str = "encoder.layer"
    names: LayerNames
    settings: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)
    token_types: bool = True
    positions_after_padding: bool = False
    relative_positions: bool = False
    head: tuple[str, str]
    head_squash: str = "tanh"


_BERT_NAMES = LayerNames(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    norm="output.LayerNorm",
)
_BERT = EncoderFamily(
    prefix="bert.",
    names=_BERT_NAMES,
    defaults={"type_vocab_size": 2, "pad_token_id": 0},
    head=("bert.pooler.dense", "classifier"),
)
_ROBERTA = EncoderFamily(
    prefix="roberta.",
    names=_BERT_NAMES,
    defaults={"type_vocab_size": 2, "pad_token_id": 1},
    positions_after_padding=True,
    head=("classifier.dense", "classifier.out_proj"),
)
_MPNET = EncoderFamily(
    prefix="mpnet.",
    names=replace(
        _BERT_NAMES,
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_out="attention.attn.o",
        attention_norm="attention.LayerNorm",
    ),
    defaults={"pad_token_id": 1, "relative_attention_num_buckets": 32},
    token_types=False,
    positions_after_padding=True,
    relative_positions=True,
    head=("classifier.dense", "classifier.out_proj"),
)
_DISTILBERT = EncoderFamily(
    prefix="distilbert.",
    layer="transformer.layer",
    names=LayerNames(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_out="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        norm="output_layer_norm",
    ),
    settings={
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    },
    defaults={"pad_token_id": 0},
    token_types=False,
    head=("pre_classifier", "classifier"),
    head_squash="relu",
)

EMBEDDING_FAMILIES: Mapping[str, EncoderFamily] = {
    "BertModel": _BERT,
    "RobertaModel": _ROBERTA,
    "XLMRobertaModel": _ROBERTA,
    "MPNetModel": _MPNET,
    "DistilBertModel": _DISTILBERT,
}
RERANK_FAMILIES: Mapping[str, EncoderFamily] = {
    "BertForSequenceClassification": _BERT,
    "RobertaForSequenceClassification": _ROBERTA,
    "XLMRobertaForSequenceClassification": _ROBERTA,
    "MPNetForSequenceClassification": _MPNET,
    "DistilBertForSequenceClassification": _DISTILBERT,
}
