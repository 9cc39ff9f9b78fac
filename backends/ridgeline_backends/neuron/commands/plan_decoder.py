"""What `ridgeline plan` prints for a decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from ridgeline_backends.models.config import DECODER_ARCHITECTURES
from ridgeline_backends.neuron.builders.configs import context_length, decoder_architecture
from ridgeline_backends.neuron.commands.plan_output import (
    SETTING,
    Comparison,
    Shown,
    Words,
    bounds,
    dollars,
    milliseconds,
    ms,
    setting_cells,
    show,
)
from ridgeline_backends.neuron.planner import Option, Target, make_plan
from ridgeline_backends.neuron.planning.comparison import rooflines
from ridgeline_backends.neuron.planning.deployment import environment
from ridgeline_backends.neuron.planning.market import Market
from ridgeline_backends.neuron.planning.picture import Axes

_COLUMNS = (
    *SETTING, "WEIGHTS", "GIB/CORE", "TTFT MS", "MS/TOKEN", "TOKENS/S", "USD/M TOKENS", "LABEL",
)  # fmt: skip


def show_decoder(
    config: Mapping[str, object],
    target: Target,
    market: Market,
    quantized: Sequence[bool],
    asked: Shown,
    *,
    compare: bool,
) -> None:
    length = min(target.length, context_length(config) or target.length)
    compared = _comparison(config, target.length) if compare else None
    words = Words(
        axes=Axes(),
        columns=_COLUMNS,
        row=_row,
        loaded=_loaded,
        environment=lambda one: environment(one.setting, length=length),
        executed=_is_executed(config),
        as_json=_as_json,
    )
    show(make_plan(config, target, market, quantized), words, asked, compared)


def _is_executed(config: Mapping[str, object]) -> bool:
    named = config.get("architectures")
    of_another = isinstance(named, list) and not set(named) & set(DECODER_ARCHITECTURES)
    return decoder_architecture(config).executed and not of_another


def _row(one: Option) -> tuple[object, ...]:
    return (
        *setting_cells(one),
        _weights(one),
        f"{one.core_bytes / 2**30:.1f}",
        f"{one.ttft.seconds * 1e3:.0f}",
        milliseconds(one.tpot),
        f"{one.tokens_s:.0f}",
        dollars(one.usd_per_million),
        one.tpot.label,
    )


def _weights(one: Option) -> str:
    return "8-bit" if one.setting.quantized else "bf16"


def _loaded(one: Option) -> str:
    if one.loaded is None:
        return ""
    return (
        f"{one.loaded.instances} of them, TTFT p90 {one.loaded.ttft_p90 * 1e3:.0f} ms, "
        f"{ms(one.loaded.tpot)} ms/token, {one.loaded.utilisation:.0%} busy"
    )


def _as_json(one: Option) -> dict[str, object]:
    return {
        "weights": _weights(one),
        "ttft_s": [one.ttft.low, one.ttft.seconds, one.ttft.high],
        "tpot_s": [one.tpot.low, one.tpot.seconds, one.tpot.high],
        "tokens_s": one.tokens_s,
        "usd_per_million_tokens": one.usd_per_million,
        "loaded": None if one.loaded is None else asdict(one.loaded),
    }


def _comparison(config: Mapping[str, object], length: int) -> Comparison:
    return bounds(
        rooflines(decoder_architecture(config), length),
        ("MS/TOKEN", "TOKENS/S", "USD/M TOKENS"),
        lambda one: (ms(one.tpot_s), f"{one.tokens_s:.0f}"),
    )
