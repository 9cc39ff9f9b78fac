"""``ridgeline logs``: what an endpoint's replicas or a job's instances wrote."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir, EndpointOrJob
from ridgeline.cli._jobs import Kind, endpoint_or_job, short_kind
from ridgeline.cli._tuning import trial_logs
from ridgeline.errors import NotFound

if TYPE_CHECKING:
    from ridgeline._logs import LogLine, Source
    from ridgeline.session import Session


def logs(
    name: EndpointOrJob,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="Lines to begin with.")] = 100,
    times: Annotated[bool, typer.Option("--times", "-t", help="Show when and who.")] = False,
    kind: Kind = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the log of an endpoint, a job or all trials of a tuning job; with --json, one object a
    line."""
    session = _common.open_session(data_dir)
    from ridgeline import _logs  # boto3: not for --help

    written = tail == 0
    try:
        source, of_trials = _source(session, name, kind)
        lines = _logs.follow(session, source, tail) if follow else _logs.tail(session, source, tail)
        for line in lines:
            written = True
            trial = line.stream.partition("/")[0] if of_trials else ""
            print(_text(line, trial, times=times, as_json=as_json), flush=follow)
    except NotFound:
        written = False
    if not written:
        # No log yet, or no such thing: the second deserves an error that says so.
        job = endpoint_or_job(session, name, kind)
        what = "Endpoint" if job is None else f"{short_kind(job).capitalize()} job"
        _common.say(f"{what} {name!r} has written nothing yet.")


def _source(session: Session, name: str, kind: str | None) -> tuple[Source, bool]:
    """Where the lines are, and whether they are of several trials. An endpoint's log is read even
    when the endpoint is gone."""
    from ridgeline._logs import of_endpoint
    from ridgeline.tuning_job import TuningJob  # boto3: not for --help

    try:
        job = endpoint_or_job(session, name, kind)
    except NotFound:
        if kind is not None:
            raise
        return of_endpoint(name), False
    if job is None:
        return of_endpoint(name), False
    if isinstance(job, TuningJob):
        return trial_logs(job), True
    return job.source, False


def _text(line: LogLine, trial: str, *, times: bool, as_json: bool) -> str:
    """The stream names the trial already."""
    when = datetime.fromtimestamp(line.timestamp_ms / 1000, UTC)
    if as_json:
        body = {"time": when.isoformat(), "stream": line.stream, "message": line.text}
        return json.dumps(body, ensure_ascii=False)
    if times:
        return f"{when:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + f"Z {line.stream}  {line.text}"
    return f"{trial}  {line.text}" if trial else line.text
