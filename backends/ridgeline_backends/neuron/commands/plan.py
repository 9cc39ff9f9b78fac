"""``ridgeline plan``: which instance type for a model, and why not the others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ridgeline.cli._common import AsJson, print_json, print_table
from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.commands.models import config_of

if TYPE_CHECKING:
    from ridgeline_backends.neuron.planner import Option, Plan
    from ridgeline_backends.neuron.planning.comparison import Roofline
    from ridgeline_backends.neuron.planning.picture import Point

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
    rps: Annotated[float | None, typer.Option("--rps", min=0, help="Requests a second.")] = None,
    prompt: Annotated[int, typer.Option("--prompt", min=1, help="Tokens of a prompt.")] = 1024,
    answer: Annotated[int, typer.Option("--answer", min=1, help="Tokens of an answer.")] = 256,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Settings to show.")] = 10,
    draw: Annotated[
        bool, typer.Option("--draw", help="Time per token against cost, in characters.")
    ] = False,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw the same into a file.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Add what data sheets say of GPUs and processors.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rank simulated Neuron instances for a model by the cost of a million tokens."""
    from ridgeline_backends.neuron.planner import Target, make_plan  # numpy: not for --help

    target = Target(
        prompt=prompt, answer=answer, ttft_s=seconds_of(ttft), tpot_s=seconds_of(tpot), rps=rps
    )
    config = config_of(model)
    found = make_plan(config, target)
    points = _points(found)
    if svg is not None and points:
        from ridgeline_backends.neuron.planning.picture import svg as drawn

        svg.write_text(drawn(points, f"{model}: {prompt} tokens in, {answer} out"), "utf-8")
    others = _others(config, target.length) if compare else []
    if as_json:
        print_json(
            {
                "options": [_as_json(one) for one in found.options],
                "front": [str(one.setting) for one in found.front],
                "near": [_as_json(one) for one in found.near],
                "left_out": dict(found.left_out),
                "rooflines": [asdict(one) for one in others],
            }
        )
        return
    _print(found, rows)
    if draw and points:
        from ridgeline_backends.neuron.planning.picture import characters

        typer.echo(f"\n{characters(points)}")
    if compare:
        _print_others(others)


def seconds_of(text: str | None) -> float | None:
    """`500ms`, `0.5s` or `0.5` in seconds. Raises `InvalidInput`."""
    if text is None:
        return None
    found = _TIME.fullmatch(text.strip())
    if found is None or float(found.group(1)) <= 0:
        raise InvalidInput(f"{text!r} is no time.", hint="Like 500ms or 0.5s.")
    return float(found.group(1)) / (1000 if found.group(2) == "ms" else 1)


def _print(found: Plan, rows: int) -> None:
    shown = found.options[:rows]
    if shown:
        columns = (
            "INSTANCE TYPE", "COUNT", "TP", "LNC", "BATCH", "WEIGHTS", "GIB/CORE", "TTFT MS",
            "MS/TOKEN", "TOKENS/S", "USD/M TOKENS", "LABEL",
        )  # fmt: skip
        print_table(columns, [_row(one) for one in shown])
        _print_trade_offs(found)
    else:
        typer.echo("No setting meets the targets.")
    for one in found.near[: 3 if shown else rows]:
        typer.echo(f"near: {one.setting}: {'; '.join(one.misses)}")
    for name, reason in found.left_out.items():
        typer.echo(f"left out: {name}: {reason}")


def _print_trade_offs(found: Plan) -> None:
    """The cheapest, and what more speed costs."""
    best = found.options[0]
    price = "" if best.usd_per_million is None else f", {best.usd_per_million:.2f} USD/M tokens"
    typer.echo(f"\ncheapest: {best.setting}{price}")
    if best.loaded is not None:
        load = best.loaded
        typer.echo(
            f"  at the rate, simulated: {load.instances} of them, TTFT p90 "
            f"{load.ttft_p90 * 1e3:.0f} ms, {load.tpot * 1e3:.1f} ms/token, "
            f"{load.utilisation:.0%} busy"
        )
    front = found.front
    steps = {len(front) // 2, len(front) - 1} - {0}
    for one in (front[place] for place in sorted(steps) if 0 < place < len(front)):
        assert one.usd_per_million is not None  # those of the front have a price
        assert front[0].usd_per_million is not None
        typer.echo(
            f"faster: {one.setting}: {front[0].tpot.seconds / one.tpot.seconds:.1f} times the "
            f"speed for {one.usd_per_million / front[0].usd_per_million:.1f} times the cost"
        )


def _points(found: Plan) -> list[Point]:
    from ridgeline_backends.neuron.planning.picture import Point

    best = {str(one.setting) for one in found.front}
    return [
        Point(
            one.usd_per_million,
            one.tpot.seconds * 1e3,
            one.setting.instance.name,
            f"{one.setting}: {one.usd_per_million:.2f} USD/M, {one.tpot.seconds * 1e3:.1f} ms",
            str(one.setting) in best,
            bool(one.misses),
        )
        for one in (*found.options, *found.near)
        if one.usd_per_million is not None
    ]


def _others(config: Mapping[str, object], length: int) -> list[Roofline]:
    from ridgeline_backends.neuron.builders.configs import decoder_architecture
    from ridgeline_backends.neuron.planning.comparison import rooflines

    return list(rooflines(decoder_architecture(config), length))


def _print_others(others: list[Roofline]) -> None:
    typer.echo("\nFor comparison, bounds by the data sheet alone (bf16, all devices together):")
    print_table(
        ("INSTANCE TYPE", "DEVICES", "BATCH", "MS/TOKEN", "TOKENS/S", "USD/M TOKENS", "LABEL"),
        [
            (
                one.name,
                one.device,
                one.batch,
                f"{one.tpot_s * 1e3:.1f}",
                f"{one.tokens_s:.0f}",
                "-" if one.usd_per_million is None else f"{one.usd_per_million:.2f}",
                "roofline",
            )
            for one in others
        ],
    )


def _row(one: Option) -> tuple[object, ...]:
    s = one.setting
    return (
        s.instance.name,
        one.instances,
        s.tp,
        s.lnc,
        s.batch,
        "8-bit" if s.quantized else "bf16",
        f"{one.core_bytes / 2**30:.1f}",
        f"{one.ttft.seconds * 1e3:.0f}",
        f"{one.tpot.seconds * 1e3:.1f} ({one.tpot.low * 1e3:.1f}-{one.tpot.high * 1e3:.1f})",
        f"{one.tokens_s:.0f}",
        "-" if one.usd_per_million is None else f"{one.usd_per_million:.2f}",
        one.tpot.label,
    )


def _as_json(one: Option) -> dict[str, object]:
    s = one.setting
    return {
        "instance_type": s.instance.name,
        "instances": one.instances,
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
