"""A small encoder of every family, and sentences for them."""

from __future__ import annotations

import random

from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
    MPNetConfig,
    MPNetForSequenceClassification,
    MPNetModel,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

# Past 128 tokens all distances are alike to MPNet. Token 1 is RoBERTa's padding.
SENTENCES = [[random.Random(n).randrange(100) for _ in range(n)] for n in (1, 2, 7, 30, 7, 150)]
SHAPE = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 60,
    "max_position_embeddings": 200,
}
DISTIL = {
    "vocab_size": 100,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 60,
    "max_position_embeddings": 200,
}
Family = tuple[type[PreTrainedModel], type[PreTrainedModel], PreTrainedConfig]
FAMILIES: dict[str, Family] = {
    "bert": (BertModel, BertForSequenceClassification, BertConfig(**SHAPE)),
    "bert, tanh form": (
        BertModel,
        BertForSequenceClassification,
        BertConfig(hidden_act="gelu_new", **SHAPE),
    ),
    "roberta": (
        RobertaModel,
        RobertaForSequenceClassification,
        RobertaConfig(type_vocab_size=1, pad_token_id=1, **SHAPE),
    ),
    "xlm-roberta": (
        XLMRobertaModel,
        XLMRobertaForSequenceClassification,
        XLMRobertaConfig(type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5, **SHAPE),
    ),
    "distilbert": (
        DistilBertModel,
        DistilBertForSequenceClassification,
        DistilBertConfig(activation="relu", **DISTIL),
    ),
    "mpnet": (MPNetModel, MPNetForSequenceClassification, MPNetConfig(**SHAPE)),
}
"""Of each the bare model, the one with a head, and their config."""
