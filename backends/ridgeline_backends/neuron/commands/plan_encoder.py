"""What `ridgeline plan` prints for a text encoder."""

from __future__ import annotations

from dataclasses import asdict

from ridgeline_backends.models.encoder_config import EncoderConfig
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
from ridgeline_backends.neuron.encoder_plan import LONGEST
from ridgeline_backends.neuron.encoder_planner import (
    EncoderOption,
    EncoderTarget,
    bucket_for,
    make_encoder_plan,
)
from ridgeline_backends.neuron.planning.comparison import encoder_rooflines
from ridgeline_backends.neuron.planning.deployment import environment
from ridgeline_backends.neuron.planning.market import Market
from ridgeline_backends.neuron.planning.picture import Axes

_COLUMNS = (
    *SETTING, "GIB/CORE", "MS/CALL", "TEXTS/S", "USD/M TEXTS", "USD/M TOKENS", "LABEL",
)  # fmt: skip


def show_encoder(
    model: EncoderConfig, target: EncoderTarget, market: Market, asked: Shown, *, compare: bool
) -> None:
    def row(one: EncoderOption) -> tuple[object, ...]:
        return (
            *setting_cells(one),
            f"{one.core_bytes / 2**30:.1f}",
            milliseconds(one.call),
            f"{one.texts_s:.0f}",
            dollars(one.usd_per_million),
            dollars(per_token(one)),
            one.call.label,
        )

    def per_token(one: EncoderOption) -> float | None:
        return None if one.usd_per_million is None else one.usd_per_million / target.seq

    def as_json(one: EncoderOption) -> dict[str, object]:
        return {
            "call_s": [one.call.low, one.call.seconds, one.call.high],
            "texts_s": one.texts_s,
            "tokens_s": one.texts_s * target.seq,
            "usd_per_million_texts": one.usd_per_million,
            "usd_per_million_tokens": per_token(one),
            "loaded": None if one.loaded is None else asdict(one.loaded),
        }

    longest = bucket_for(model, target.seq)
    length = longest if longest > LONGEST else None  # else the endpoint's own choice
    words = Words(
        axes=Axes("call", "texts"),
        columns=_COLUMNS,
        row=row,
        loaded=_loaded,
        environment=lambda one: environment(one.setting, length=length),
        executed=True,
        as_json=as_json,
    )
    compared = _comparison(model, target.seq) if compare else None
    show(make_encoder_plan(model, target, market), words, asked, compared)


def _loaded(one: EncoderOption) -> str:
    if one.loaded is None:
        return ""
    return (
        f"{one.loaded.instances} of them, p90 of a call {ms(one.loaded.latency_p90)} ms, "
        f"{one.loaded.utilisation:.0%} busy"
    )


def _comparison(model: EncoderConfig, seq: int) -> Comparison:
    return bounds(
        encoder_rooflines(model, bucket_for(model, seq)),
        ("MS/CALL", "TEXTS/S", "USD/M TEXTS"),
        lambda one: (ms(one.call_s), f"{one.texts_s:.0f}"),
    )
