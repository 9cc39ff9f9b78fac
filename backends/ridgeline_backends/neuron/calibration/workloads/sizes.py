"""The sizes of a transformer's layers by its config.json, as encoders and training take them: every
layer alike. What kind of model it is follows from the config, not from a list of names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ridgeline_backends.errors import BackendError
from ridgeline_backends.neuron.builders.architecture import (
    DecoderArchitecture,
    Experts,
    LatentAttention,
    Layer,
    Mixer,
)
from ridgeline_backends.neuron.builders.configs import decoder_architecture
from ridgeline_backends.neuron.builders.spellings import SECTIONS
from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.catalogue.families import is_decoder, own_settings, reads_gated
from ridgeline_backends.neuron.partition import KVRule, plan_heads

_HIDDEN = ("hidden_size", "n_embd", "dim", "d_model")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "encoder_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "encoder_attention_heads", "num_heads")
_INTERMEDIATE = ("intermediate_size", "n_inner", "hidden_dim", "ffn_dim", "encoder_ffn_dim", "d_ff")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")

_MOST = {**dict.fromkeys(_LAYERS, 1024), **dict.fromkeys(_HEADS, 4096)}
"""Ten times as many as any published model has: more is a slip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """`intermediate`: columns of MLPs that a token goes through; `kept`: of all there are, more
    where experts are chosen. `vocab` 0: the config names none."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    kept: int
    vocab: int
    decoder: bool
    gated: bool

    @property
    def mixture(self) -> bool:
        return self.kept > self.intermediate

    def heads_over(self, cores: int) -> tuple[int, int]:
        """Heads of queries and of keys, padded and copied as libraries do where a degree cuts them
        into parts that do not go together."""
        queries, keys = -(-self.heads // cores), max(1, -(-self.kv_heads // cores))
        if queries % keys == 0:
            return self.heads, self.kv_heads
        plan = plan_heads(self.heads, self.kv_heads, cores, KVRule.REPLICATE_TO_TP_DEGREE)
        return plan.queries_per_core * cores, plan.keys_per_core * cores


def sizes_of(config: Mapping[str, object], row: Row) -> Sizes:
    """Raises `UnpredictableRow` for a size that is missing or goes with no other."""
    refuse_slips(config, row)
    found = _decoder(config, row) if is_decoder(config) else _encoder(config, row)
    if found.head_dim < 1:
        raise UnpredictableRow(
            f"{row.id}: its config.json has more heads ({found.heads}) than the numbers of its "
            f"hidden state ({found.hidden})."
        )
    return found


def refuse_slips(config: Mapping[str, object], row: Row) -> None:
    """Raises `UnpredictableRow` for a number of layers or heads that no model has."""
    for part in (config, own_settings(config)):
        for name, most in _MOST.items():
            value = part.get(name)
            if isinstance(value, int) and value > most:
                raise UnpredictableRow(f"{row.id}: its config.json has {name} {value}.")


def _decoder(config: Mapping[str, object], row: Row) -> Sizes:
    settings = {name: value for name, value in own_settings(config).items() if name not in _OUTER}
    vocab = settings.get("vocab_size", settings.get("padded_vocab_size"))
    vocab = vocab if type(vocab) is int and vocab > 0 else 0
    try:
        model = decoder_architecture({**settings, "vocab_size": vocab or 1})
    except BackendError as error:
        raise UnpredictableRow(f"{row.id}: {error.message}") from error
    through, kept = _columns(model)
    mixer = model.layers[0].mixer
    return Sizes(
        hidden=model.hidden,
        layers=len(model.layers),
        heads=mixer.heads,
        kv_heads=mixer.heads if isinstance(mixer, LatentAttention) else mixer.kv_heads,
        head_dim=_width(mixer, model.hidden),
        intermediate=through,
        kept=kept,
        vocab=vocab,
        decoder=True,
        gated=any(_is_gated(layer) for layer in model.layers),
    )


_OUTER = ("architectures", *SECTIONS)
"""What would have the sizes be read as strictly as for a model that is executed, or read anew."""


def _is_gated(layer: Layer) -> bool:
    return isinstance(layer.mlp, Experts) or layer.mlp.gated


def _columns(model: DecoderArchitecture) -> tuple[int, int]:
    """Of an average layer's MLPs: those that a token goes through, and all."""
    through = kept = 0
    for layer in model.layers:
        mlp = layer.mlp
        if isinstance(mlp, Experts):
            through += min(mlp.chosen, mlp.count) * mlp.intermediate + mlp.shared
            kept += mlp.count * mlp.intermediate + mlp.shared
        else:
            through += mlp.intermediate
            kept += mlp.intermediate
    count = len(model.layers)
    return max(1, round(through / count)), max(1, round(kept / count))


def _width(mixer: Mixer, hidden: int) -> int:
    """Numbers of a head; of latent attention as many as make matrices of its size."""
    if not isinstance(mixer, LatentAttention):
        return mixer.head_dim
    turned = mixer.nope_dim + mixer.rope_dim
    queries = mixer.heads * turned
    numbers = hidden * queries if mixer.q_rank is None else mixer.q_rank * (hidden + queries)
    numbers += hidden * (mixer.kv_rank + mixer.rope_dim)
    numbers += mixer.kv_rank * mixer.heads * (mixer.nope_dim + mixer.value_dim)
    numbers += mixer.heads * mixer.value_dim * hidden
    return max(1, round(numbers / (4 * mixer.heads * hidden)))


def _encoder(config: Mapping[str, object], row: Row) -> Sizes:
    settings = own_settings(config)

    def size(*names: str, default: int | None = None) -> int:
        for name in names:
            value = settings.get(name)
            if type(value) is int and value > 0:
                return value
        if default is None:
            wanted = " or ".join(names)
            raise UnpredictableRow(f"{row.id}: its config.json has no {wanted} above 0.")
        return default

    if any(settings.get(name) for name in _EXPERTS):
        raise UnpredictableRow(
            f"{row.id}: encoders with experts are not modelled, but decoders with experts are.",
        )
    hidden, heads = size(*_HIDDEN), size(*_HEADS)
    keys = size("num_key_value_heads", default=heads)
    if heads % keys:
        raise UnpredictableRow(f"{row.id}: {heads} attention heads are no multiple of {keys}.")
    inner = size(*_INTERMEDIATE, default=4 * hidden)
    return Sizes(
        hidden=hidden,
        layers=size(*_LAYERS),
        heads=heads,
        kv_heads=keys,
        head_dim=size("head_dim", "d_kv", default=hidden // heads),
        intermediate=inner,
        kept=inner,
        vocab=size("vocab_size", default=0),
        decoder=False,
        gated=reads_gated(config),
    )
