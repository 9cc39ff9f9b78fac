"""What `ridgeline plan` prints for a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from ridgeline_backends.neuron.builders.configs import decoder_architecture
from ridgeline_backends.neuron.commands.plan_output import (
    Comparison,
    Shown,
    Words,
    dollars,
    milliseconds,
    ms,
    show,
)
from ridgeline_backends.neuron.planner import Option, Target, make_plan
from ridgeline_backends.neuron.planning.comparison import rooflines
from ridgeline_backends.neuron.planning.picture import Axes

_COLUMNS = (
    "INSTANCE TYPE", "COUNT", "COPIES", "TP", "LNC", "BATCH", "WEIGHTS", "GIB/CORE", "TTFT MS",
    "MS/TOKEN", "TOKENS/S", "USD/M TOKENS", "LABEL",
)  # fmt: skip


def show_decoder(
    config: Mapping[str, object], target: Target, asked: Shown, *, compare: bool
) -> None:
    compared = _comparison(config, target.length) if compare else None
    show(make_plan(config, target), _WORDS, asked, compared)


def _row(one: Option) -> tuple[object, ...]:
    s = one.setting
    return (
        s.instance.name,
        one.instances,
        s.copies,
        s.tp,
        s.lnc,
        s.batch,
        "8-bit" if s.quantized else "bf16",
        f"{one.core_bytes / 2**30:.1f}",
        f"{one.ttft.seconds * 1e3:.0f}",
        milliseconds(one.tpot),
        f"{one.tokens_s:.0f}",
        dollars(one.usd_per_million),
        one.tpot.label,
    )


def _loaded(one: Option) -> str:
    if one.loaded is None:
        return ""
    return (
        f"{one.loaded.instances} of them, TTFT p90 {one.loaded.ttft_p90 * 1e3:.0f} ms, "
        f"{ms(one.loaded.tpot)} ms/token, {one.loaded.utilisation:.0%} busy"
    )


def _as_json(one: Option) -> dict[str, object]:
    s = one.setting
    return {
        "instance_type": s.instance.name,
        "instances": one.instances,
        "copies": s.copies,
        "tp": s.tp,
        "lnc": s.lnc,
        "batch": s.batch,
        "weights": "8-bit" if s.quantized else "bf16",
        "core_bytes": one.core_bytes,
        "ttft_s": [one.ttft.low, one.ttft.seconds, one.ttft.high],
        "tpot_s": [one.tpot.low, one.tpot.seconds, one.tpot.high],
        "tokens_s": one.tokens_s,
        "usd_per_million_tokens": one.usd_per_million,
        "label": one.tpot.label,
        "misses": list(one.misses),
        "loaded": None if one.loaded is None else asdict(one.loaded),
    }


_WORDS = Words(axes=Axes(), columns=_COLUMNS, row=_row, loaded=_loaded, as_json=_as_json)


def _comparison(config: Mapping[str, object], length: int) -> Comparison:
    found = rooflines(decoder_architecture(config), length)
    return Comparison(
        columns=(
            "INSTANCE TYPE", "DEVICES", "BATCH", "MS/TOKEN", "TOKENS/S", "USD/M TOKENS", "LABEL",
        ),
        rows=[
            (
                one.name,
                one.device,
                one.batch,
                ms(one.tpot_s),
                f"{one.tokens_s:.0f}",
                dollars(one.usd_per_million),
                "roofline",
            )
            for one in found
        ],
        as_json=[asdict(one) for one in found],
    )  # fmt: skip
