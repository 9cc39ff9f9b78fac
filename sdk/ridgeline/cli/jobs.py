"""``ridgeline jobs`` and ``ridgeline stop``: the training and tuning jobs of the service."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir
from ridgeline.cli._tuning import stage, stop_tuning, tuning_jobs
from ridgeline.errors import NotFound, RidgelineError


def complete_job(incomplete: str) -> list[str]:
    """Names of jobs that begin with what was typed, for the shell."""
    try:
        session = _common.open_session(None)
        with session.call():
            answer = session.sagemaker_client.list_training_jobs(MaxResults=100)
    except RidgelineError:
        # No service, no suggestions: a shell that is completing has no place for errors.
        return []
    names = (str(item["TrainingJobName"]) for item in answer["TrainingJobSummaries"])
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
    """List the training and tuning jobs, newest first."""
    session = _common.open_session(data_dir)
    given = {"NameContains": contains, "StatusEquals": status}
    query = {key: value for key, value in given.items() if value}
    with session.call():
        pages = session.sagemaker_client.get_paginator("list_training_jobs").paginate(
            SortBy="CreationTime",
            SortOrder="Descending",
            PaginationConfig={"MaxItems": last},
            **query,
        )
        found = [item for page in pages for item in page["TrainingJobSummaries"]]
    found += tuning_jobs(session, query, last)
    found = sorted(found, key=lambda item: item["CreationTime"], reverse=True)[:last]
    if as_json:
        _common.print_json(found)
        return
    if not found:
        _common.say("No training jobs. `ridgeline train SCRIPT` starts one.")
        return
    rows = [
        (*_state(item), item["CreationTime"].astimezone().strftime("%Y-%m-%d %H:%M:%S"))
        for item in found
    ]
    _common.print_table(("NAME", "STATUS", "STAGE", "CREATED"), rows)


def _state(item: dict[str, Any]) -> tuple[str, str, str]:
    """Name, status and stage of a job of either kind."""
    if "HyperParameterTuningJobName" in item:
        status = item["HyperParameterTuningJobStatus"]
        return item["HyperParameterTuningJobName"], status, stage(item)
    return item["TrainingJobName"], item["TrainingJobStatus"], item.get("SecondaryStatus", "")


def stop(
    names: Annotated[
        list[str],
        typer.Argument(metavar="JOB...", help="Names of jobs.", autocompletion=complete_job),
    ],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Stop training or tuning jobs; what they made until then is kept."""
    session = _common.open_session(data_dir)
    from ridgeline.training_job import TrainingJob  # boto3: not for --help

    stopped: list[str] = []
    exit_codes: list[int] = []
    for name in names:
        try:
            try:
                TrainingJob(name, session).stop()
            except NotFound as unknown:
                stop_tuning(session, name, unknown)
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
