"""``ridgeline plan``: which instance type for a model, and why not the others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ridgeline.cli._common import AsJson
from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.commands.models import config_of, encoder_of

_PROMPT, _ANSWER, _TEXT = 1024, 256, 128
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)?")


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
    from ridgeline_backends.neuron.commands.plan_decoder import show_decoder
    from ridgeline_backends.neuron.commands.plan_encoder import show_encoder
    from ridgeline_backends.neuron.commands.plan_output import Shown
    from ridgeline_backends.neuron.encoder_planner import EncoderTarget
    from ridgeline_backends.neuron.planner import Target

    config = config_of(model)
    encoder = encoder_of(config)
    of_decoders = {"--ttft": ttft, "--tpot": tpot, "--prompt": prompt, "--answer": answer}
    of_encoders = {"--latency": latency, "--seq": seq}
    if encoder is not None:
        _refuse(
            of_decoders,
            f"of decoders, and {model} is an encoder, which writes no tokens",
            "An encoder's target is --latency, of a call, and the tokens of a text are --seq.",
        )
        length = seq or min(_TEXT, encoder.context_length)
        shown = Shown(
            rows=rows, draw=draw, svg=svg, as_json=as_json, title=f"{model}: texts of {length}"
        )
        wanted = EncoderTarget(seq=length, latency_s=seconds_of(latency), rps=rps)
        show_encoder(encoder, wanted, shown, compare=compare)
        return
    _refuse(
        of_encoders,
        f"of encoders, and {model} is a decoder",
        "A decoder's targets are --ttft and --tpot, its lengths --prompt and --answer.",
    )
    target = Target(
        prompt=prompt or _PROMPT,
        answer=answer or _ANSWER,
        ttft_s=seconds_of(ttft),
        tpot_s=seconds_of(tpot),
        rps=rps,
    )
    title = f"{model}: {target.prompt} tokens in, {target.answer} out"
    shown = Shown(rows=rows, draw=draw, svg=svg, as_json=as_json, title=title)
    show_decoder(config, target, shown, compare=compare)


def _refuse(options: Mapping[str, object], why: str, hint: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        verb = "is" if len(given) == 1 else "are"
        raise InvalidInput(f"{' and '.join(given)} {verb} {why}.", hint=hint)


def seconds_of(text: str | None) -> float | None:
    """`500ms`, `0.5s` or `0.5` in seconds. Raises `InvalidInput`."""
    if text is None:
        return None
    found = _TIME.fullmatch(text.strip())
    if found is None or float(found.group(1)) <= 0:
        raise InvalidInput(f"{text!r} is no time.", hint="Like 500ms or 0.5s.")
    return float(found.group(1)) / (1000 if found.group(2) == "ms" else 1)
