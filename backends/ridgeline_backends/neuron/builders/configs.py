"""Any decoder's config.json, read for its shapes.

Families that run are read as strictly as `models.config` does. Of others only what decides shapes,
bytes and FLOPs is read, in every spelling that published configs have; numerics that change none
of these are passed over. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping

from ridgeline_backends.errors import InvalidModel, UnsupportedModel
from ridgeline_backends.models.config import DECODER_ARCHITECTURES, decoder_config
from ridgeline_backends.models.reader import Reader
from ridgeline_backends.neuron.builders.architecture import (
    DecoderArchitecture,
    Experts,
    LatentAttention,
    Layer,
    Mixer,
    Mlp,
    SelfAttention,
    dense,
)
from ridgeline_backends.neuron.builders.layer_kinds import (
    FULL,
    NAMES,
    RECURRENT,
    is_sparse,
    mixer_kind,
)
from ridgeline_backends.neuron.builders.recurrences import STATE, recurrence
from ridgeline_backends.neuron.builders.spellings import in_common_words, language_model
from ridgeline_backends.neuron.builders.unread import Noted
from ridgeline_backends.neuron.operations.elementwise import UnaryFunction

_PLAIN_MLP = {
    "apertus",
    "arcee",
    "biogpt",
    "bloom",
    "codegen",
    "ctrl",
    "falcon",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gpt_neox_japanese",
    "gptj",
    "jais2",
    "mpt",
    "nanochat",
    "nemotron",
    "openai-gpt",
    "opt",
    "persimmon",
    "phi",
    "starcoder2",
    "xglm",
}
"""MLPs of two matrices, not three."""

_RMS_NORM_ALL_THE_SAME = {"apertus", "arcee", "nanochat"}
_LAYER_NORM = {*_PLAIN_MLP, "cohere", "cohere2", "orion", "stablelm"} - _RMS_NORM_ALL_THE_SAME
_PARALLEL = {"codegen", "cohere", "cohere2", "falcon", "gptj", "phi"}
_LEARNED_POSITIONS = {"biogpt", "gpt2", "gpt_bigcode", "gpt_neo", "openai-gpt", "opt", "xglm"}
_NO_POSITIONS = {"bloom"}
_BIASED = {"bloom", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "opt", "phi", "starcoder2"}
_FUNCTIONS: dict[str, UnaryFunction] = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_EXPERTS_THAT_ATTEND = ("jetmoe",)
_ATTEND_NOWHERE = ("falcon_mamba", "mamba", "mamba2", "retnet", "rwkv", "rwkv5", "rwkv6", "xlstm")

_HIDDEN = ("hidden_size", "n_embd", "n_embed", "d_model", "dim")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
_HEAD_DIM = ("head_dim", "kv_channels", "attention_head_dim")
_VOCAB = ("vocab_size", "padded_vocab_size")
_INTERMEDIATE = (
    "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "ff_intermediate_size",
    "hidden_dim", "dff", "dim_ff",
)  # fmt: skip
_POSITIONS = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = (
    "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "moe_k",
    "moe_top_k", "top_k_experts", "num_selected_experts",
)  # fmt: skip
_OWN = ("moe_intermediate_size", "expert_ffn_hidden_size")
_SHARED = (
    "shared_expert_intermediate_size", "shared_intermediate_size",
    "moe_shared_expert_intermediate_size",
)  # fmt: skip
_SHARED_COUNT = (
    "n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert",
)  # fmt: skip


def decoder_architecture(config: Mapping[str, object]) -> DecoderArchitecture:
    """Raises `InvalidModel` for a size that is missing or of the wrong kind; `UnsupportedModel` for
    a setting that may change sizes and is not known, and of a family that runs for more."""
    if runs(config):
        found = dense(decoder_config(config))
        _refuse_uneven(language_model(config), found.hidden, found.layers[0].mixer.heads)
        return found
    settings = Noted(in_common_words(language_model(config)), read=NAMES)
    if settings.get("model_type") in _EXPERTS_THAT_ATTEND:
        raise UnsupportedModel("Models whose attention is made by experts are not modelled.")
    if settings.get("model_type") in _ATTEND_NOWHERE:
        raise UnsupportedModel(
            f"Models of type {settings['model_type']} have no attention, and are not modelled.",
            hint="Layers that keep a state are, in a model with others that attend.",
        )
    found = _ShapeReader(settings).read()
    settings.refuse_unread()
    return found


def context_length(config: Mapping[str, object]) -> int | None:
    """Positions of the longest sequence that the model is made for; None where its config does not
    say, and for models that take their words at any distance. YaRN's is the one after the scaling.
    Raises as `decoder_architecture`."""
    if runs(config):
        return decoder_config(config).context_length
    settings = language_model(config)
    name = next((one for one in _POSITIONS if settings.get(one)), None)
    if name is None or settings.get("model_type") in _NO_POSITIONS:
        return None
    length = Reader(settings).integer(name)
    scaling = Reader(settings).section("rope_parameters")
    scaling = scaling or Reader(settings).section("rope_scaling")
    if "yarn" not in (scaling.get("rope_type"), scaling.get("type")):
        return length
    # Some configs keep the length before the scaling, some write the one after it.
    original = Reader(scaling).integer("original_max_position_embeddings", length)
    return max(length, int(original * Reader(scaling).number("factor", length / original)))


def runs(config: Mapping[str, object]) -> bool:
    """Whether the model's arithmetic is known too, so that its programs can be executed."""
    names = config.get("architectures")
    return isinstance(names, list) and any(name in DECODER_ARCHITECTURES for name in names)


def _refuse_uneven(settings: Mapping[str, object], hidden: int, heads: int) -> None:
    """Raises `InvalidModel` where heads have no whole number of the hidden state each."""
    if hidden % heads and not any(settings.get(name) for name in _HEAD_DIM):
        raise InvalidModel(
            f"hidden_size {hidden} is no multiple of {heads} attention heads, and config.json has "
            "no head_dim."
        )


class _ShapeReader:
    def __init__(self, config: Mapping[str, object]) -> None:
        self._config = config
        self._read = Reader(config)
        self._type = str(config.get("model_type", ""))
        self._layers = self._integer(_LAYERS)
        self._hidden = self._integer(_HIDDEN)
        self._heads = self._integer(_HEADS)
        self._head_dim = self._optional(_HEAD_DIM) or max(1, self._hidden // self._heads)

    def read(self) -> DecoderArchitecture:
        mixers = [self._mixer(index) for index in range(self._layers)]
        rotary = {
            mixer.rope_dim if isinstance(mixer, LatentAttention) else self._rotary_dim()
            for mixer in mixers
        }
        positions = self._optional(_POSITIONS)
        learned = positions or 2048 if self._type in _LEARNED_POSITIONS else 0
        return DecoderArchitecture(
            hidden=self._hidden,
            layers=tuple(self._layer(index, mixer) for index, mixer in enumerate(mixers)),
            vocab_size=self._integer(_VOCAB),
            norm_eps=1e-5,
            tied_head=self._read.flag("tie_word_embeddings", self._type in ("gpt2", "opt")),
            layer_norm=self._type in _LAYER_NORM,
            learned_positions=learned,
            rotary_dims=() if self._ropeless else tuple(sorted(rotary)),
        )

    @property
    def _ropeless(self) -> bool:
        return self._type in _LEARNED_POSITIONS or self._type in _NO_POSITIONS

    def _layer(self, index: int, mixer: Mixer) -> Layer:
        parallel = self._type in _PARALLEL
        if self._type == "gpt_neox":
            parallel = self._read.flag("use_parallel_residual", True)
        elif self._type == "falcon":
            parallel = self._read.flag("parallel_attn", True)
        biased = self._type in _BIASED
        return Layer(
            mixer=mixer,
            mlp=self._mlp(index),
            parallel=parallel,
            o_bias=biased,
            down_bias=biased,
        )

    def _mixer(self, index: int) -> Mixer:
        kind = mixer_kind(self._config, index)
        if kind in RECURRENT:
            found = recurrence(self._config, kind, hidden=self._hidden, heads=self._heads)
            if found is not None:
                return found
        if self._config.get("kv_lora_rank") is not None:
            return self._latent()
        kv = self._optional(_KV_HEADS, index)
        if kv is None:
            kv = 1 if self._read.flag("multi_query", False) else self._heads
        if self._heads % kv:
            raise InvalidModel(f"{self._heads} attention heads are no multiple of {kv} KV heads.")
        _refuse_uneven(self._config, self._hidden, self._heads)
        window = self._optional(("sliding_window", "attention_chunk_size"))
        return SelfAttention(
            heads=self._heads,
            kv_heads=kv,
            head_dim=self._head_dim,
            scale=self._head_dim**-0.5,
            rope=None if self._ropeless else 0,
            window=None if kind in FULL else window or STATE,
            qk_norm=self._read.flag("use_qk_norm", self._type in ("qwen3", "qwen3_moe", "olmo2")),
            bias=self._read.flag("attention_bias", self._type in _BIASED),
        )

    def _latent(self) -> LatentAttention:
        nope = self._read.integer("qk_nope_head_dim")
        turned = self._read.integer("qk_rope_head_dim")
        return LatentAttention(
            heads=self._heads,
            q_rank=self._optional(("q_lora_rank",)),
            kv_rank=self._read.integer("kv_lora_rank"),
            nope_dim=nope,
            rope_dim=turned,
            value_dim=self._read.integer("v_head_dim"),
            scale=(nope + turned) ** -0.5,
        )

    def _mlp(self, index: int) -> Mlp | Experts:
        intermediate = self._optional(_INTERMEDIATE, index) or self._by_ratio()
        function = self._function()
        # Looked up for every layer, dense ones too: none of these is unread.
        count, chosen = self._optional(_EXPERTS, index) or 1, self._optional(_CHOSEN, index)
        own = self._optional(_OWN, index) or intermediate
        shared = self._optional(_SHARED, index) or 0
        several = self._optional(_SHARED_COUNT, index)
        if count > 1 and is_sparse(self._config, index):
            if several:
                shared = several * own
            elif self._type.startswith("llama4"):
                shared = intermediate
            return Experts(
                count=count,
                chosen=chosen or self._integer(_CHOSEN),
                intermediate=own,
                function=function,
                shared=shared,
            )
        if self._type.startswith("llama4"):
            intermediate = self._read.integer("intermediate_size_mlp", intermediate)
        return Mlp(
            intermediate=intermediate,
            function=function,
            gated=self._type not in _PLAIN_MLP,
            bias=self._type in _BIASED,
        )

    def _by_ratio(self) -> int:
        return max(1, int(self._read.number("mlp_ratio", 4) * self._hidden))

    def _rotary_dim(self) -> int:
        given = self._optional(("rotary_dim",))
        if given is not None:
            return given
        share = self._config.get("partial_rotary_factor", self._config.get("rotary_pct"))
        return int(self._head_dim * float(share)) if isinstance(share, float) else self._head_dim

    def _function(self) -> UnaryFunction:
        keys = ("hidden_act", "activation_function", "hidden_activation", "activation")
        named = next((self._config[k] for k in keys if self._config.get(k) is not None), None)
        if named is None:
            return "gelu" if self._type in _PLAIN_MLP else "silu"
        # An activation that no engine has by name costs a pass like any other.
        return _FUNCTIONS.get(str(named), "gelu" if self._type in _PLAIN_MLP else "silu")

    def _integer(self, names: tuple[str, ...]) -> int:
        found = self._optional(names)
        return self._read.integer(names[0]) if found is None else found

    def _optional(self, names: tuple[str, ...], index: int | None = None) -> int | None:
        """The first of these settings that is there and is not 0; of one that lists the layers,
        what it has for the layer of that index."""
        present = [name for name in names if self._config.get(name) not in (None, 0)]
        if not present:
            return None
        value = self._config[present[0]]
        if isinstance(value, list) and index is not None:
            if len(value) not in (1, self._layers):
                raise InvalidModel(f"{present[0]} in config.json must have a value for each layer.")
            value = value[index if len(value) > 1 else 0]
        return Reader({present[0]: value}).integer(present[0])
