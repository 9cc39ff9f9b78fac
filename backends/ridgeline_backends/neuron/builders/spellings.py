"""What some families write in a way of their own, said in the words that the others share.

A family that is not here uses those words already. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ridgeline_backends.models.reader import Reader
from ridgeline_backends.neuron.builders.layer_kinds import RECURRENT

Settings = Mapping[str, object]

SECTIONS = ("text_config", "llm_config", "language_config")
"""Where a model with parts for images or sound keeps the settings of the part that writes."""

_OLD_FALCONS = ("RefinedWeb", "RefinedWebModel")


def _sizes(
    hidden: int, intermediate: int, layers: int, heads: int, kv: int, vocab: int, dim: int = 0
) -> Settings:
    found = {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
    }
    return {**found, "head_dim": dim} if dim else found


_LEFT_OUT: Mapping[str, Settings] = {
    "cohere": _sizes(8192, 22528, 40, 64, 64, 256_000),
    "cohere2": _sizes(8192, 22528, 40, 64, 64, 256_000),
    "gemma": _sizes(3072, 24576, 28, 16, 16, 256_000, 256),
    "gemma2": _sizes(2304, 9216, 26, 8, 4, 256_000, 256),
    "gemma3_text": _sizes(2304, 9216, 26, 8, 4, 262_208, 256),
    "glm4": _sizes(4096, 13696, 40, 32, 2, 151_552, 128),
    "granite": _sizes(4096, 11008, 32, 32, 32, 32_000),
    "llama": _sizes(4096, 11008, 32, 32, 0, 32_000),
    "llama4_text": _sizes(5120, 8192, 48, 40, 8, 202_048, 128),
    "ministral3": _sizes(4096, 14336, 34, 32, 8, 131_072, 128),
    "mistral": _sizes(4096, 14336, 32, 32, 8, 32_000),
    "mixtral": _sizes(4096, 14336, 32, 32, 8, 32_000),
    "olmo2": _sizes(4096, 11008, 32, 32, 0, 50_304),
    "phi": _sizes(2048, 8192, 24, 32, 0, 51_200),
    "phi3": _sizes(3072, 8192, 32, 32, 0, 32_064),
    "qwen2": _sizes(4096, 22016, 32, 32, 32, 151_936),
    "qwen3": _sizes(4096, 22016, 32, 32, 32, 151_936, 128),
    "smollm3": _sizes(2048, 11008, 36, 16, 4, 128_256),
}
"""By model type, what transformers takes a size for that a section leaves out: it writes only what
differs. KV heads 0: as many as there are of queries."""


def language_model(config: Settings) -> Settings:
    """The settings of the part that writes, where the config is of a model with others too."""
    for name in SECTIONS:
        part = Reader(config).section(name)
        if part:
            tied = config.get("tie_word_embeddings")
            whole = with_left_out(part)
            return whole if tied is None else {**whole, "tie_word_embeddings": tied}
    # Such a section can stand alone.
    return with_left_out(config) if str(config.get("model_type")).endswith("_text") else config


def with_left_out(section: Settings) -> Settings:
    """A section with the sizes that it leaves out."""
    return {**_LEFT_OUT.get(str(section.get("model_type")), {}), **section}


def in_common_words(config: Settings) -> Settings:
    """The same settings by their common names. Raises `InvalidModel`."""
    kind = str(config.get("model_type", ""))
    if config.get("is_moe") is False or config.get("enable_moe_block") is False:
        config = {**config, "num_experts": None}
    respelt = _FAMILIES.get(kind)
    return config if respelt is None else respelt(config)


def _dbrx(config: Settings) -> Settings:
    attention = Reader(Reader(config).section("attn_config"))
    mlp = Reader(Reader(config).section("ffn_config"))
    found: dict[str, object] = {**config, "attn_config": None, "ffn_config": None}
    if attention.config:
        found["num_key_value_heads"] = attention.integer("kv_n_heads", 1)
    if mlp.config:
        found["intermediate_size"] = mlp.integer("ffn_hidden_size", 3584)
        found["num_experts"] = mlp.integer("moe_num_experts", 4)
        found["num_experts_per_tok"] = mlp.integer("moe_top_k", 1)
    return found


def _mpt(config: Settings) -> Settings:
    read = Reader(config)
    attention = read.section("attn_config")
    many = attention.get("attn_type") != "multiquery_attention"
    found: dict[str, object] = {
        "num_key_value_heads": attention.get("kv_n_heads") if many else 1,
        **config,
        "attn_config": None,
    }
    hidden = read.integer("d_model", 2048)
    if not config.get("intermediate_size"):
        found["intermediate_size"] = int(read.number("expansion_ratio", 4) * hidden)
    return found


def _falcon(config: Settings) -> Settings:
    """Only the newer architecture has groups: of the older, `num_kv_heads` says nothing."""
    read = Reader(config)
    older = config.get("model_type") in _OLD_FALCONS
    grouped = "n_head_kv" in config if older else read.flag("new_decoder_architecture", False)
    found = {**config, "model_type": "falcon"}
    if not grouped:
        found |= {"num_kv_heads": None, "multi_query": read.flag("multi_query", True)}
    return found


def _halved(config: Settings) -> Settings:
    """Of the two matrices behind a gated product it gives the columns of both."""
    return {**config, "intermediate_size": max(1, Reader(config).integer("intermediate_size") // 2)}


def _many_queries(config: Settings) -> Settings:
    return {**config, "multi_query": Reader(config).flag("multi_query", True)}


def _lfm2(config: Settings) -> Settings:
    """Columns of the MLP are two thirds of what is given, rounded up, where it says so."""
    read = Reader(config)
    if not read.flag("block_auto_adjust_ff_dim", False):
        return config
    width = 2 * read.integer("block_ff_dim", read.integer("intermediate_size", 1)) // 3
    width = int(width * read.number("block_ffn_dim_multiplier", 1.0))
    step = read.integer("block_multiple_of", 256)
    return {**config, "intermediate_size": -(-width // step) * step}


def _granite_hybrid(config: Settings) -> Settings:
    """Without experts its MLP is what is shared. Where all layers attend, none has a state."""
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and not any(one in RECURRENT for one in kinds):
        config = {**config, "mamba_d_state": None}
    if config.get("num_local_experts"):
        return config
    return {
        **config,
        "intermediate_size": config.get("shared_intermediate_size"),
        "shared_intermediate_size": None,
    }


def _olmo_1(config: Settings) -> Settings:
    """It gives the columns of both matrices, or their ratio to the hidden state's."""
    read = Reader(config)
    both = int(read.number("mlp_ratio", 4) * read.integer("d_model"))
    both = read.integer("mlp_hidden_size", both)
    tied = config.get("weight_tying", True)
    return {"tie_word_embeddings": tied, **config, "intermediate_size": max(1, both // 2),
            "mlp_hidden_size": None}  # fmt: skip


def _hunyuan(config: Settings) -> Settings:
    """One expert is shared where it does not say how many."""
    return {"num_shared_expert": 1, **config} if config.get("num_experts") else config


_FAMILIES: Mapping[str, Callable[[Settings], Settings]] = {
    "dbrx": _dbrx,
    "falcon": _falcon,
    **dict.fromkeys(_OLD_FALCONS, _falcon),
    "gpt_bigcode": _many_queries,
    "granitemoehybrid": _granite_hybrid,
    "hf_olmo": _olmo_1,
    "hunyuan_v1_moe": _hunyuan,
    "lfm2": _lfm2,
    "mpt": _mpt,
    "qwen": _halved,
    "recurrent_gemma": _halved,
}
