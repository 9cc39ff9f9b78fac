"""``ridgeline neuron fault``: the simulated hardware of an endpoint fails on demand."""

from __future__ import annotations

from typing import Annotated

import typer

from ridgeline.cli._common import AsJson, DataDir, open_session, print_json, say
from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.commands.watch import Endpoint


def fault(
    endpoint: Endpoint,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            help="core-hang, hbm-error, core-error, dma-abort, link-down or numerical-error.",
        ),
    ] = None,
    after: Annotated[
        int, typer.Option("--after", min=0, help="Steps of the engine that pass before.")
    ] = 0,
    every: Annotated[
        int, typer.Option("--every", min=0, help="Again every so many steps; 0: once.")
    ] = 0,
    replica: Annotated[
        str, typer.Option("--replica", metavar="ID", help="One replica; all if left out.")
    ] = "",
    clear: Annotated[
        bool, typer.Option("--clear", help="All is whole again, as in a process started anew.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Let the simulated hardware of an endpoint fail: requests end with the Neuron runtime's own
    statuses."""
    if clear == (kind is not None):
        raise InvalidInput(
            "Give a --kind of fault, or --clear.",
            hint=f"Like `ridgeline neuron fault {endpoint} --kind hbm-error --after 10`.",
        )
    body = {"kind": kind or "", "after": after, "every": every, "replica": replica}
    answer = open_session(data_dir).api.post("endpoints", endpoint, "faults", body=body)
    if as_json:
        print_json(answer)
        return
    whose = ", ".join(answer["replicas"])
    if clear:
        say(f"Whole again: {whose}.")
    else:
        again = f" and every {every} steps" if every else ""
        say(f"{kind} after {after} steps{again}: {whose}. End it with --clear.")
