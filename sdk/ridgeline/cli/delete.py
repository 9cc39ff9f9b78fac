"""``ridgeline delete``: an endpoint, with its configuration and models."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir
from ridgeline.errors import RidgelineError


def delete(
    endpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="ENDPOINT...",
            help="Names of endpoints.",
            autocompletion=_common.complete_endpoint,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    keep_model: Annotated[
        bool, typer.Option("--keep-model", help="Keep the models it runs.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return when the deletion is accepted.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Delete endpoints with their configurations and models, but for what others use too.
    Asks first on a terminal."""
    session = _common.open_session(data_dir)
    # boto3: not for --help
    from ridgeline._deletion import delete_parts
    from ridgeline._endpoints import Parts, parts
    from ridgeline._waiting import wait_until_deleted

    if not yes and _on_a_terminal():
        typer.confirm(f"Delete {', '.join(endpoints)}?", abort=True, err=True)
    accepted: list[Parts] = []
    exit_codes: list[int] = []
    for name in endpoints:
        try:
            found = parts(session, name)
            with session.call():
                session.sagemaker_client.delete_endpoint(EndpointName=name)
        except RidgelineError as error:
            # One name that is wrong must not keep the others alive.
            exit_codes.append(_common.report(error, as_json=as_json))
        else:
            accepted.append(found)
    kept = delete_parts(session, accepted, models=not keep_model)
    for found in accepted:
        if not no_wait:
            wait_until_deleted(session, found.endpoint)
        if not as_json:
            _common.say(f"Deleted {found.endpoint}.")
    if as_json:
        _common.print_json({"deleted": [found.endpoint for found in accepted], "kept": kept})
    for line in () if as_json else kept:
        _common.say(f"Kept {line}.")
    if exit_codes:
        raise typer.Exit(exit_codes[0])


def _on_a_terminal() -> bool:
    return sys.stdin.isatty()
