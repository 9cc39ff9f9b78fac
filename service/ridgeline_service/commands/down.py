"""``ridgeline down``: stop the service of a data directory, whatever is left of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ridgeline_service.paths import DataDir
from ridgeline_service.processes import end
from ridgeline_service.supervisor.shutdown import stop_everything
from ridgeline_service.supervisor.state import read_state

_SUPERVISOR_GRACE_S = 60.0


def down(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Which service. [default: $RIDGELINE_HOME or ~/.ridgeline]"),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Stop the service and every replica. Data is kept; `ridgeline up` brings endpoints back."""
    directory = DataDir.find(data_dir)
    state = read_state(directory)
    if state is not None and state.supervisor.alive():
        end(state.supervisor, _SUPERVISOR_GRACE_S)
    # The supervisor may have been killed, now or earlier: what it left is ended here.
    stop_everything(directory, state.children if state else {})
    stopped = state is not None
    if json_output:
        sys.stdout.write(json.dumps({"stopped": stopped, "data_dir": str(directory.root)}) + "\n")
        return
    console = Console(highlight=False)
    if stopped:
        console.print(f"Stopped. Data is kept in {directory.root}")
    else:
        console.print(f"Nothing was running on {directory.root}")
