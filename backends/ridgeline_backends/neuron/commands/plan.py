"""``ridgeline plan``: which instance type for a model, and why not the others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import isfinite, nan
from pathlib import Path
from typing import Annotated

import typer

from ridgeline.cli._common import AsJson
from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.commands.files import check_writable
from ridgeline_backends.neuron.commands.models import config_of, encoder_of, without_quantiser

_PROMPT, _ANSWER, _TEXT = 1024, 256, 128
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)")


class Weights(StrEnum):
    """What matrices are kept as."""

    BF16 = "bf16"
    EIGHT_BIT = "8-bit"


def plan(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of a public model, or a config.json.")
    ],
    ttft: Annotated[
        str | None, typer.Option("--ttft", metavar="TIME", help="Time to first token, like 500ms.")
    ] = None,
    tpot: Annotated[
        str | None, typer.Option("--tpot", metavar="TIME", help="Time per token, like 40ms.")
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option("--latency", metavar="TIME", help="Of an encoder: time of a call, like 20ms."),
    ] = None,
    rps: Annotated[
        float | None,
        typer.Option("--rps", min=0.001, help="Requests a second; of an encoder texts a second."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--instance", metavar="TYPE", help="This type alone; several are allowed."),
    ] = None,
    prices: Annotated[
        list[str] | None,
        typer.Option(
            "--price", metavar="TYPE=USD", help="What an hour costs; several are allowed."
        ),
    ] = None,
    weights: Annotated[
        Weights | None, typer.Option("--weights", help="Of a decoder: these alone.")
    ] = None,
    prompt: Annotated[
        int | None,
        typer.Option("--prompt", min=1, help="Tokens of a prompt.", show_default=str(_PROMPT)),
    ] = None,
    answer: Annotated[
        int | None,
        typer.Option("--answer", min=1, help="Tokens of an answer.", show_default=str(_ANSWER)),
    ] = None,
    seq: Annotated[
        int | None,
        typer.Option(
            "--seq", min=1, help="Of an encoder: tokens of a text.", show_default=str(_TEXT)
        ),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Settings to show.")] = 10,
    draw: Annotated[
        bool, typer.Option("--draw", help="Time per token, or call, against cost, in characters.")
    ] = False,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw the same into a file.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Add what data sheets say of GPUs and processors.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rank simulated Neuron instances for a model by the cost of a million tokens, or texts."""
    # Here, because they read data that --help does without.
    from ridgeline_backends.neuron.builders.configs import context_length
    from ridgeline_backends.neuron.commands.plan_decoder import show_decoder
    from ridgeline_backends.neuron.commands.plan_encoder import show_encoder
    from ridgeline_backends.neuron.commands.plan_output import Shown
    from ridgeline_backends.neuron.encoder_planner import EncoderTarget
    from ridgeline_backends.neuron.planner import Target
    from ridgeline_backends.neuron.planning.market import Market
    from ridgeline_backends.neuron.serving.load import Lengths

    if svg is not None:
        check_writable(svg, "--svg")
    config = config_of(model)
    encoder = encoder_of(config)
    market = Market(only=only or (), prices=prices_of(prices or ()))
    if rps is not None and not isfinite(rps):
        raise InvalidInput(f"--rps {rps} is no rate.", hint="Like 5 or 0.2.")
    of_decoders = {
        "--ttft": ttft, "--tpot": tpot, "--prompt": prompt, "--answer": answer,
        "--weights": weights,
    }  # fmt: skip
    of_encoders = {"--latency": latency, "--seq": seq}
    if encoder is not None:
        _refuse(
            of_decoders,
            f"of decoders, and {model} is an encoder, which writes no tokens",
            "An encoder's target is --latency, of a call, and the tokens of a text are --seq.",
        )
        length = seq or min(_TEXT, encoder.context_length)
        wanted = EncoderTarget(seq=length, latency_s=seconds_of(latency), rps=rps)
        shown = Shown(
            rows=rows,
            draw=draw,
            svg=svg,
            as_json=as_json,
            model=model,
            title=f"{model}: texts of {length} tokens",
            targets=_targets({"a call": wanted.latency_s}, rps, "texts"),
        )
        show_encoder(encoder, wanted, market, shown, compare=compare)
        return
    _refuse(
        of_encoders,
        f"of encoders, and {model} is a decoder",
        "A decoder's targets are --ttft and --tpot, its lengths --prompt and --answer.",
    )
    config = without_quantiser(config)
    usual = Lengths(prompt=_PROMPT, answer=_ANSWER)
    lengths = usual.within(context_length(config), prompt=prompt, answer=answer)
    target = Target(
        prompt=lengths.prompt,
        answer=lengths.answer,
        ttft_s=seconds_of(ttft),
        tpot_s=seconds_of(tpot),
        rps=rps,
    )
    title = f"{model}: {target.prompt} tokens in, {target.answer} out"
    limits = {"a first token": target.ttft_s, "a token": target.tpot_s}
    shown = Shown(
        rows=rows,
        draw=draw,
        svg=svg,
        as_json=as_json,
        model=model,
        title=title,
        targets=_targets(limits, rps, "requests"),
    )
    quantized = (False, True) if weights is None else (weights is Weights.EIGHT_BIT,)
    show_decoder(config, target, market, quantized, shown, compare=compare)


def _targets(limits: Mapping[str, float | None], rps: float | None, things: str) -> str:
    said = [f"{name} within {s * 1e3:g} ms" for name, s in limits.items() if s is not None]
    return ", ".join(said + ([] if rps is None else [f"{rps:g} {things} a second"]))


def prices_of(given: Sequence[str]) -> dict[str, float]:
    """Of `TYPE=USD`. Raises `InvalidInput`."""
    found = {}
    for one in given:
        name, _, price = one.partition("=")
        try:
            usd = float(price)
        except ValueError:
            usd = nan
        if not (name and isfinite(usd) and usd > 0):
            raise InvalidInput(f"--price {one} is no price.", hint="Like trn2.48xlarge=23.06.")
        found[name] = usd
    return found


def _refuse(options: Mapping[str, object], why: str, hint: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        verb = "is" if len(given) == 1 else "are"
        raise InvalidInput(f"{' and '.join(given)} {verb} {why}.", hint=hint)


def seconds_of(text: str | None) -> float | None:
    """`500ms` or `0.5s` in seconds. Raises `InvalidInput`."""
    if text is None:
        return None
    found = _TIME.fullmatch(text.strip().lower())
    if found is None or float(found.group(1)) <= 0:
        raise InvalidInput(
            f"{text!r} is no time with its unit (ms or s).", hint="Like 500ms or 0.5s."
        )
    return float(found.group(1)) / (1000 if found.group(2) == "ms" else 1)
