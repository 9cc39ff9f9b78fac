"""``ridgeline down``: stop the service of a data directory, whatever is left of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ridgeline_service.paths import DataDir
from ridgeline_service.processes import ProcessId, end
from ridgeline_service.supervisor.lock import last_holder
from ridgeline_service.supervisor.shutdown import stop_everything
from ridgeline_service.supervisor.state import StateUnreadable, find_children, read_state

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
    supervisor, children = _processes(directory)
    if supervisor is not None:
        end(supervisor, _SUPERVISOR_GRACE_S)
    # The supervisor may have been killed, now or earlier: what it left is ended here.
    stop_everything(directory, children)
    stopped = supervisor is not None or bool(children)
    if json_output:
        sys.stdout.write(json.dumps({"stopped": stopped, "data_dir": str(directory.root)}) + "\n")
        return
    console = Console(highlight=False)
    if stopped:
        console.print(f"Stopped. Data is kept in {directory.root}")
    else:
        console.print(f"Nothing was running on {directory.root}")


def _processes(directory: DataDir) -> tuple[ProcessId | None, dict[str, ProcessId]]:
    """The supervisor and its children, dead or alive, as they were recorded or else are found."""
    try:
        state = read_state(directory)
    except StateUnreadable:
        return last_holder(directory), find_children(directory)
    return (state.supervisor, state.children) if state else (None, {})
