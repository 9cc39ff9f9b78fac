"""Rotary positions as configurations describe them: every spelling, every scaling in use.

`dynamic` scaling changes the keys of a sequence as it grows beyond the model's context, which no
cache of keys can follow; within the context, which is all that is served, it changes nothing.
Imports no torch: `rope` computes the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ridgeline_backends.errors import InvalidModel, UnsupportedModel
from ridgeline_backends.models.reader import Reader

FULL, SLIDING = "full_attention", "sliding_attention"

_COMMON = {
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "finetuned",  # a remark about training
}
_SETTINGS = {
    "default": set[str](),
    "dynamic": {"factor"},
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor"},
    "yarn": {
        "factor",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
    },
    "longrope": {"factor", "attention_factor", "short_factor", "long_factor"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Rotary positions: `theta`, and what `kind` rescales.

    `kind`: default, linear, llama3, yarn or longrope. `attention_factor` multiplies cos and sin.
    `short_factors` are longrope's divisors of the frequencies for contexts up to
    `original_context`, `long_factors` those for longer ones.
    """

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Ropes:
    """The rotary positions of full and of sliding layers, and the share of a head they turn."""

    full: RopeConfig
    sliding: RopeConfig
    rotary_share: float


def read_ropes(
    config: Mapping[str, object],
    context: int,
    *,
    theta: float,
    local_theta: float | None = None,
    yarn_is_longrope: bool = False,
    partial_rotary: bool = False,
) -> Ropes:
    """Read both spellings: `rope_parameters` (transformers 5) and the older `rope_scaling` beside
    `rope_theta`. Where a config has both they count as in transformers: the older one alone, or
    over the newer one's full layers in a family that lists its ropes by layer type.

    `context` is max_position_embeddings; `theta` and `local_theta` are the family's defaults.
    `yarn_is_longrope`: early configs of the family call it so. `partial_rotary`: the family turns
    the share `partial_rotary_factor` of a head; others turn all of it.
    Raises `InvalidModel` and `UnsupportedModel`.
    """
    top = Reader(config)
    older, newer = top.section("rope_scaling"), top.section("rope_parameters")
    shared = {
        "rope_theta": config.get("rope_theta") or theta,
        "partial_rotary_factor": config.get("partial_rotary_factor"),
    }
    if local_theta is None:
        full = {**shared, **_known(older or newer)}
        if yarn_is_longrope and _kind(full) == "yarn":
            full = {**full, "rope_type": "longrope"}
        sliding = full
    else:
        by_layer = Reader(newer)
        by_layer.refuse_others((FULL, SLIDING), "rope_parameters")
        local = {**shared, "rope_theta": config.get("rope_local_base_freq") or local_theta}
        full = {**shared, **_known(by_layer.section(FULL)), **_known(older)}
        # What the older spelling rescales are the full layers only.
        sliding = {**local, **_known(by_layer.section(SLIDING))}
    original = config.get("original_max_position_embeddings")
    ropes = _rope(full, context, original), _rope(sliding, context, original)
    if partial_rotary:
        return Ropes(*ropes, _share(full))
    _refuse_a_share(full)
    _refuse_a_share(sliding)
    return Ropes(*ropes, 1.0)


def _known(section: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in section.items() if value is not None}


def _kind(rope: Mapping[str, object]) -> object:
    return rope.get("rope_type", rope.get("type", "default"))


def _share(rope: Mapping[str, object]) -> float:
    share = Reader(rope).number("partial_rotary_factor", 1.0)
    if share > 1:
        raise InvalidModel(f"partial_rotary_factor {share} in config.json is above 1.")
    return share


def _refuse_a_share(rope: Mapping[str, object]) -> None:
    """A family that turns whole heads ignores a share, but no scaling of its frequencies does."""
    kind = _kind(rope)
    if kind != "default" and _share(rope) != 1:
        raise InvalidModel(
            f"partial_rotary_factor with rope_type {kind!r} fits no head of this architecture, "
            "which turns the whole of it.",
            hint="Take partial_rotary_factor out of config.json.",
        )


def _rope(merged: Mapping[str, object], context: int, original: object) -> RopeConfig:
    read = Reader(merged)
    kind = _kind(merged)
    # The name under which longrope was published first.
    if kind == "su":
        kind = "longrope"
    if not isinstance(kind, str) or kind not in _SETTINGS:
        raise UnsupportedModel(
            f"rope_type {kind!r} is not supported.", hint=f"Supported: {', '.join(_SETTINGS)}."
        )
    read.refuse_others(_COMMON | _SETTINGS[kind], f"rope_type {kind}")
    theta = read.number("rope_theta")
    if kind in ("default", "dynamic"):
        return RopeConfig(theta=theta)
    if kind == "linear":
        return RopeConfig(theta=theta, kind=kind, factor=read.number("factor"))
    if original is not None:
        # Phi-3 writes it beside the scaling, and that one counts.
        read = Reader({**merged, "original_max_position_embeddings": original})
    original_context = read.integer("original_max_position_embeddings", context)
    if kind == "llama3":
        return RopeConfig(
            theta=theta,
            kind=kind,
            factor=read.number("factor"),
            low_freq_factor=read.number("low_freq_factor"),
            high_freq_factor=read.number("high_freq_factor"),
            original_context=original_context,
        )
    factor = read.number("factor", context / original_context)
    attention = read.optional_number("attention_factor")
    if kind == "yarn":
        return RopeConfig(
            theta=theta,
            kind=kind,
            factor=factor,
            original_context=original_context,
            attention_factor=_yarn_attention(read, factor) if attention is None else attention,
            beta_fast=read.number("beta_fast", 32.0),
            beta_slow=read.number("beta_slow", 1.0),
            truncate=read.flag("truncate", True),
        )
    if attention is None:
        growth = math.log(max(factor, 1.0)) / math.log(original_context)
        attention = math.sqrt(1 + growth)
    return RopeConfig(
        theta=theta,
        kind=kind,
        factor=factor,
        original_context=original_context,
        attention_factor=attention,
        short_factors=read.numbers("short_factor"),
        long_factors=read.numbers("long_factor"),
    )


def _yarn_attention(read: Reader, factor: float) -> float:
    """The paper's temperature; `mscale` over `mscale_all_dim` as DeepSeek writes it."""

    def scale(by: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    over, under = read.optional_number("mscale"), read.optional_number("mscale_all_dim")
    if over is not None and under is not None:
        return scale(over) / scale(under)
    return scale(1.0)
