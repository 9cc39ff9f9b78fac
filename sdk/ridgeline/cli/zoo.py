"""``ridgeline zoo``: the models that can be deployed by name."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir

app = typer.Typer(help="The models that can be deployed by name.", no_args_is_help=True)


@app.command("ls")
def ls(
    query: Annotated[
        str | None, typer.Argument(help="Only models that match this.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the models of the zoo."""
    session = _common.open_session(data_dir)
    from ridgeline.zoo import list_cards  # boto3: not for --help

    cards = list_cards(session, query)
    if as_json:
        _common.print_json(cards)
        return
    if not cards:
        _common.say(
            f"No model matches {query!r}. `ridgeline zoo ls` lists all; `ridgeline deploy` takes "
            "ORG/NAME of the hub and weights of your own too."
        )
        return
    rows = [
        (
            card.get("id", ""),
            card.get("task", ""),
            _count(card.get("parameters")),
            card.get("licence", ""),
            "yes" if card.get("gated") else "",
        )
        for card in cards
    ]
    _common.print_table(("ID", "TASK", "PARAMETERS", "LICENCE", "GATED"), rows)


@app.command("show")
def show(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Id of the model.", autocompletion=_common.complete_model
        ),
    ],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the card of a model."""
    session = _common.open_session(data_dir)
    from ridgeline.zoo import fetch_card  # boto3: not for --help

    card = fetch_card(session, model)
    if as_json:
        _common.print_json(card.body)
        return
    body = dict(card.body)
    inner = body.pop("card", None)
    if isinstance(inner, dict):
        body = {**inner, **body}
    for name, value in body.items():
        if value not in (None, "", [], {}):
            print(f"{name + ':':<26}{_plain(value)}")
    print()
    print(f"ridgeline deploy {card.model_id}")


def _count(parameters: Any) -> str:
    if not isinstance(parameters, int):
        return ""
    for unit, size in (("B", 10**9), ("M", 10**6)):
        if parameters >= size:
            return f"{parameters / size:.3g}{unit}"
    return str(parameters)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={inner}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(str(inner) for inner in value)
    return " ".join(str(value).split())
