"""``ridgeline jobs`` and ``ridgeline stop``: the jobs of the service, of all kinds."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir
from ridgeline.cli._jobs import Kind, find_job, list_jobs, state
from ridgeline.cli._tuning import stage, tuning_jobs
from ridgeline.errors import RidgelineError

_STATUSES = ("InProgress", "Completed", "Failed", "Stopping", "Stopped")
_COMPLETED = 100
"""Names of each kind that are offered to a shell."""


def complete_job(incomplete: str) -> list[str]:
    """Names of jobs that begin with what was typed, for the shell."""
    try:
        session = _common.open_session(None)
        found = list_jobs(session, {}, _COMPLETED)
    except RidgelineError:
        # No service, no suggestions: a shell that is completing has no place for errors.
        return []
    names = (state(item)[0] for item in found)
    return [name for name in names if name.startswith(incomplete)]


def jobs(
    contains: Annotated[
        str | None, typer.Argument(help="Only names that contain this.", show_default=False)
    ] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="Like InProgress, Completed or Failed.")
    ] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many.")] = 50,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs of all kinds, newest first."""
    session = _common.open_session(data_dir)
    if status is not None:
        status = next((one for one in _STATUSES if one.lower() == status.lower()), status)
    given = {"NameContains": contains, "StatusEquals": status}
    query = {key: value for key, value in given.items() if value}
    found = [*list_jobs(session, query, last), *tuning_jobs(session, query, last)]
    found = sorted(found, key=lambda item: item["CreationTime"], reverse=True)[:last]
    if as_json:
        _common.print_json(found)
        return
    if not found:
        _common.say(_none_found(contains, status))
        return
    rows = [
        (*_state(item), item["CreationTime"].astimezone().strftime("%Y-%m-%d %H:%M:%S"))
        for item in found
    ]
    _common.print_table(("NAME", "KIND", "STATUS", "STAGE", "CREATED"), rows)


def _none_found(contains: str | None, status: str | None) -> str:
    if contains is None and status is None:
        return "No jobs. `ridgeline train SCRIPT` starts one."
    named = "" if contains is None else f" whose name contains {contains!r}"
    being = "" if status is None else f"{' and' if named else ''} whose status is {status!r}"
    return f"No job{named}{being}. `ridgeline jobs` lists all."


def _state(item: dict[str, Any]) -> tuple[str, str, str, str]:
    """Name, kind, status and stage of a job of any kind."""
    if "HyperParameterTuningJobName" in item:
        status = item["HyperParameterTuningJobStatus"]
        return item["HyperParameterTuningJobName"], "tuning", status, stage(item)
    return state(item)


def stop(
    names: Annotated[
        list[str],
        typer.Argument(metavar="JOB...", help="Names of jobs.", autocompletion=complete_job),
    ],
    kind: Kind = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Stop jobs of any kind; what they made until then is kept."""
    session = _common.open_session(data_dir)
    stopped: list[str] = []
    exit_codes: list[int] = []
    for name in names:
        try:
            find_job(session, name, kind).stop()
        except RidgelineError as error:
            # One name that is wrong must not keep the others running.
            exit_codes.append(_common.report(error, as_json=as_json))
        else:
            stopped.append(name)
            if not as_json:
                _common.say(f"Stopping {name}.")
    if as_json:
        _common.print_json({"stopping": stopped})
    if exit_codes:
        raise typer.Exit(exit_codes[0])
