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
) -> Ropes:
    """Read both spellings: `rope_parameters`, also by layer type (transformers 5), and the older
    `rope_scaling` beside `rope_theta` (with `rope_local_base_freq`, for sliding layers).

    `context` is max_position_embeddings; `theta` and `local_theta` are the family's defaults.
    `yarn_is_longrope`: early configs of the family call it so.
    Raises `InvalidModel` and `UnsupportedModel`.
    """
    top = Reader(config)
    given = top.section("rope_parameters") or top.section("rope_scaling")
    by_layer = FULL in given or SLIDING in given
    full = Reader(given).section(FULL) if by_layer else given
    if yarn_is_longrope and "yarn" in (full.get("rope_type"), full.get("type")):
        full = {**full, "rope_type": "longrope"}
    shared = {
        "rope_theta": config.get("rope_theta") or theta,
        "partial_rotary_factor": config.get("partial_rotary_factor"),
    }
    sliding: Mapping[str, object] = full
    sliding_shared = shared
    if by_layer or local_theta is not None:
        # A family with a local theta never rescales its sliding layers.
        sliding = Reader(given).section(SLIDING) if by_layer else {}
        if local_theta is not None:
            local = config.get("rope_local_base_freq") or local_theta
            sliding_shared = {**shared, "rope_theta": local}
    share = _share({**shared, **_known(full)})
    if _share({**sliding_shared, **_known(sliding)}) != share:
        raise UnsupportedModel("partial_rotary_factor differs between kinds of layers.")
    original = config.get("original_max_position_embeddings")
    return Ropes(
        _rope({**shared, **_known(full)}, context, original),
        _rope({**sliding_shared, **_known(sliding)}, context, original),
        share,
    )


def _known(section: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in section.items() if value is not None}


def _share(merged: Mapping[str, object]) -> float:
    share = Reader(merged).number("partial_rotary_factor", 1.0)
    if share > 1:
        raise InvalidModel(f"partial_rotary_factor {share} in config.json is above 1.")
    return share


def _rope(merged: Mapping[str, object], context: int, original: object) -> RopeConfig:
    read = Reader(merged)
    kind = merged.get("rope_type", merged.get("type", "default"))
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
