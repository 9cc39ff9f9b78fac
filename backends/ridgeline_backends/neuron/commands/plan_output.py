"""How a plan is shown: a table, what more speed costs, what is left out, pictures, or JSON."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import typer

from ridgeline.cli._common import print_json, print_table
from ridgeline_backends.neuron.planning.comparison import EncoderRoofline, Roofline
from ridgeline_backends.neuron.planning.deployment import is_deployable
from ridgeline_backends.neuron.planning.picture import Axes, Point, characters, svg
from ridgeline_backends.neuron.planning.ranking import WORTH_SAYING, Candidate, Plan

if TYPE_CHECKING:
    from ridgeline_backends.neuron.timing.predict import Prediction

B = TypeVar("B", bound=Roofline | EncoderRoofline)
C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Words(Generic[C]):
    """What is said of an option of a kind of plan. `loaded`: at the wanted rate, "" without one.
    `environment`: of a model that is deployed so; `executed`: whether endpoints run such models."""

    axes: Axes
    columns: tuple[str, ...]
    row: Callable[[C], tuple[object, ...]]
    loaded: Callable[[C], str]
    environment: Callable[[C], Mapping[str, str]]
    executed: bool
    as_json: Callable[[C], Mapping[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What was asked for. `title`: the model and its lengths; `targets`: what is to be met;
    `model`: as it was named."""

    rows: int
    draw: bool
    svg: Path | None
    as_json: bool
    title: str
    targets: str
    model: str


def show(found: Plan[C], words: Words[C], asked: Shown, compared: Comparison | None) -> None:
    points = _points(found, words.axes)
    if asked.svg is not None and points:
        asked.svg.write_text(svg(points, asked.title, words.axes), "utf-8")
    if asked.as_json:
        print_json(
            {
                "options": [_json(one, words) for one in found.options],
                "front": [str(one.setting) for one in found.front],
                "near": [_json(one, words) for one in found.near],
                "untried": [str(one.setting) for one in found.untried],
                "left_out": dict(found.left_out),
                "rooflines": [] if compared is None else compared.as_json,
            }
        )
        return
    typer.echo(f"{asked.title}; {asked.targets or 'no targets'}.\n")
    _print(found, words, asked)
    if asked.draw and points:
        typer.echo(f"\n{characters(points, words.axes)}")
    if compared is not None:
        typer.echo("\nFor comparison, bounds by the data sheet alone (bf16, all devices together):")
        print_table(compared.columns, compared.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Instance types that are not simulated."""

    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]
    as_json: list[dict[str, object]]


def bounds(
    found: Iterable[B], columns: tuple[str, str, str], cells: Callable[[B], tuple[str, str]]
) -> Comparison:
    """Of rooflines. `cells`: a time and a rate, below the first two of `columns`; the third is of
    the price."""
    return Comparison(
        columns=("INSTANCE TYPE", "DEVICES", "BATCH", *columns, "LABEL"),
        rows=[
            (one.name, one.device, one.batch, *cells(one), dollars(one.usd_per_million), "roofline")
            for one in found
        ],
        as_json=[asdict(one) for one in found],
    )


SETTING = ("INSTANCE TYPE", "COUNT", "COPIES", "TP", "LNC", "BATCH")


def setting_cells(one: Candidate) -> tuple[object, ...]:
    """Below `SETTING`."""
    s = one.setting
    return (s.instance.name, one.instances, s.copies, s.tp, s.lnc, s.batch)


def _json(one: C, words: Words[C]) -> dict[str, object]:
    """What options of all kinds of plans have in common, and what this kind has."""
    s = one.setting
    return {
        "instance_type": s.instance.name,
        "instances": one.instances,
        "copies": s.copies,
        "tp": s.tp,
        "lnc": s.lnc,
        "batch": s.batch,
        "core_bytes": one.core_bytes,
        "label": one.pace.label,
        "misses": list(one.misses),
        "environment": dict(words.environment(one)),
        **words.as_json(one),
    }


def dollars(price: float | None) -> str:
    """With digits enough for what costs less than a cent."""
    if price is None:
        return "-"
    return f"{price:.2f}" if price >= 0.1 else f"{price:.2g}"


def milliseconds(time: Prediction) -> str:
    """With its interval."""
    middle, low, high = (ms(one) for one in (time.seconds, time.low, time.high))
    return f"{middle} ({low}-{high})"


def ms(seconds: float) -> str:
    """Milliseconds, with digits enough for what takes less than one."""
    value = seconds * 1e3
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _print(found: Plan[C], words: Words[C], asked: Shown) -> None:
    rows = asked.rows
    shown = found.options[:rows]
    if shown:
        print_table(words.columns, [words.row(one) for one in shown])
        _print_trade_offs(found, words, asked.model)
    else:
        typer.echo("No setting meets the targets.")
    for one in found.near[: 3 if shown else rows]:
        typer.echo(f"near: {one.setting}: {'; '.join(one.misses)}")
    if found.near and not shown:
        fastest = min(found.near, key=lambda one: one.pace.seconds)
        typer.echo(f"fastest: {fastest.setting}: {'; '.join(fastest.misses)}")
    for name, reason in found.left_out.items():
        typer.echo(f"left out: {name}: {reason}")
    unpriced = {one.setting.instance.name: None for one in found.options if not one.priced}
    if unpriced:
        typer.echo(
            f"without a listed price, so ranked last: {', '.join(unpriced)}; "
            "--price TYPE=USD gives one, an hour"
        )


def _print_trade_offs(found: Plan[C], words: Words[C], model: str) -> None:
    """The cheapest, and what more speed costs."""
    best, unit = found.options[0], f"USD/M {words.axes.things}"
    price = "" if best.usd_per_million is None else f", {dollars(best.usd_per_million)} {unit}"
    typer.echo(f"\n{'cheapest' if best.priced else 'first'}: {best.setting}{price}")
    if said := words.loaded(best):
        typer.echo(f"  at the rate, simulated: {said}")
    if not words.executed:
        typer.echo("  sized and timed only: endpoints do not run models of this kind")
    elif is_deployable(best.setting.instance):
        deployed = _place(model)
        typer.echo(f"  as an endpoint: {_command(best, words.environment(best), deployed)}")
        if "/" not in deployed:
            typer.echo(
                f"  (of the zoo; if it has no {model}: ORG/NAME of the hub, or ./FOLDER with the "
                "weights)"
            )
    front = found.front
    steps = {len(front) // 2, len(front) - 1} - {0}
    for one in (front[place] for place in sorted(steps) if 0 < place < len(front)):
        assert one.usd_per_million is not None  # those of the front have a price
        assert front[0].usd_per_million is not None
        gain = front[0].pace.seconds / one.pace.seconds
        if gain >= WORTH_SAYING:
            cost = one.usd_per_million / front[0].usd_per_million
            typer.echo(
                f"faster: {one.setting}: {gain:.1f} times the speed for {cost:.1f} times the cost"
            )


def _place(model: str) -> str:
    """A path as `ridgeline deploy` takes it, to a folder and with a slash; else the name, which it
    takes of the zoo and of the hub, and plans of any public model."""
    place = Path(model)
    if not place.exists():
        return model
    folder = place.parent if place.is_file() else place
    return str(folder) if folder.is_absolute() else f"./{folder}"


def _command(one: Candidate, environment: Mapping[str, str], model: str) -> str:
    several = f" --count {one.instances}" if one.instances > 1 else ""
    return " ".join(
        (
            f"ridgeline deploy {shlex.quote(model)} --instance-type "
            f"ml.{one.setting.instance.name}{several}",
            *(f"--env {name}={value}" for name, value in environment.items()),
        )
    )


def _points(found: Plan[C], axes: Axes) -> list[Point]:
    best = {str(one.setting) for one in found.front}
    return [
        Point(
            one.usd_per_million,
            one.pace.seconds * 1e3,
            one.setting.instance.name,
            f"{one.setting}: {dollars(one.usd_per_million)} USD/M {axes.things}, "
            f"{ms(one.pace.seconds)} ms",
            str(one.setting) in best,
            bool(one.misses),
        )
        for one in (*found.options, *found.near)
        if one.usd_per_million is not None
    ]
