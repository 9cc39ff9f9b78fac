"""What a decoder is, as far as its shapes go: more kinds than `models` runs. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.neuron.operations.elementwise import UnaryFunction


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfAttention:
    """`rope`: which of the model's rotary tables turns the queries and keys; None: none does.
    `kept`: entries of its cache, where a state stands as so many; None: one of each position."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rope: int | None = None
    window: int | None = None
    kept: int | None = None
    softcap: float | None = None
    qk_norm: bool = False
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Keys and values from one latent of `kv_rank` numbers a token, beside `rope_dim` that are
    turned (DeepSeek-V2, arXiv 2405.04434). `q_rank` None: queries straight from the hidden state.
    """

    heads: int
    q_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    scale: float
    rope: int = 0


Mixer = SelfAttention | LatentAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp:
    intermediate: int
    function: UnaryFunction
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """`chosen` of `count` gated MLPs for each token, and one of `shared` columns for all (0:
    none)."""

    count: int
    chosen: int
    intermediate: int
    function: UnaryFunction
    shared: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """`sandwich`: what mixer and MLP give is normalised too. `parallel`: both see the same input,
    and one sum takes both. The biases of what is summed over the cores are added to the sum."""

    mixer: Mixer
    mlp: Mlp | Experts
    sandwich: bool = False
    parallel: bool = False
    o_bias: bool = False
    down_bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderArchitecture:
    """`rotary_dims`: the width of each rotary table. `learned_positions`: how many rows a table of
    positions has; 0: there is none. `layer_norm`: norms with mean and bias, not RMS norms."""

    hidden: int
    layers: tuple[Layer, ...]
    vocab_size: int
    norm_eps: float
    tied_head: bool
    layer_norm: bool = False
    learned_positions: int = 0
    rotary_dims: tuple[int, ...] = ()
    embedding_scale: float = 1.0
    final_softcap: float | None = None

    @property
    def executed(self) -> bool:
        """Whether it is of the kind that endpoints run: dense, one part after the other, with RMS
        norms. Others are sized and timed."""
        return (
            not self.layer_norm
            and not self.learned_positions
            and all(
                isinstance(one.mixer, SelfAttention)
                and isinstance(one.mlp, Mlp)
                and not one.parallel
                for one in self.layers
            )
        )

    @property
    def runs(self) -> tuple[Run, ...]:
        """The layers in order, as patterns that are repeated."""
        kinds = {layer: number for number, layer in enumerate(dict.fromkeys(self.layers))}
        return runs_of(tuple(kinds[layer] for layer in self.layers))


class Run(NamedTuple):
    """`repeats` times the `period` layers from `first` on."""

    first: int
    period: int
    repeats: int


@lru_cache(maxsize=64)
def runs_of(kinds: tuple[int, ...]) -> tuple[Run, ...]:
    """With as few runs, and layers written out in them, as can be: backwards, what is best from
    each place on. Of equals the one whose first run is the longest. Kept, since a plan asks for
    the same layers in hundreds of programs."""
    best: list[tuple[int, tuple[Run, ...]]] = [(0, ())] * (len(kinds) + 1)
    for first in reversed(range(len(kinds))):
        found = []
        for period in range(1, len(kinds) - first + 1):
            pattern, end = kinds[first : first + period], first + period
            while kinds[end - period : end] == pattern:
                written, rest = best[end]
                run = Run(first, period, (end - first) // period)
                found.append((1 + period + written, (run, *rest)))
                end += period
        best[first] = min(found, key=lambda one: (one[0], -one[1][0].period * one[1][0].repeats))
    return best[0][1]


def dense(config: DecoderConfig) -> DecoderArchitecture:
    """Of a family that `models` runs."""

    def layer(index: int) -> Layer:
        mixer = SelfAttention(
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            scale=config.attention_scale,
            rope=config.layer_rope[index],
            window=config.windows[index],
            softcap=config.attention_softcap,
            qk_norm=config.qk_norm,
            bias=config.qkv_bias,
        )
        mlp = Mlp(intermediate=config.intermediate, function=config.activation)
        return Layer(mixer=mixer, mlp=mlp, sandwich=config.sandwich_norms, o_bias=config.o_bias)

    return DecoderArchitecture(
        hidden=config.hidden,
        layers=tuple(layer(index) for index in range(config.layers)),
        vocab_size=config.vocab_size,
        norm_eps=config.norm_eps,
        tied_head=config.tied_head,
        rotary_dims=(config.rotary_dim,) * len(config.ropes),
        embedding_scale=config.embedding_scale,
        final_softcap=config.final_softcap,
    )
