"""``ridgeline logs``: what an endpoint's replicas or a job's instances wrote."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir, EndpointOrJob
from ridgeline.cli._jobs import endpoint_or_job
from ridgeline.errors import NotFound

if TYPE_CHECKING:
    from ridgeline._logs import LogLine, Source
    from ridgeline.session import Session


def logs(
    name: EndpointOrJob,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="Lines to begin with.")] = 100,
    times: Annotated[bool, typer.Option("--times", "-t", help="Show when and who.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the log of an endpoint or a job; with --json, one object a line."""
    session = _common.open_session(data_dir)
    from ridgeline import _logs  # boto3: not for --help

    try:
        source = _source(session, name)
        lines = _logs.follow(session, source, tail) if follow else _logs.tail(session, source, tail)
        for line in lines:
            print(_text(line, times=times, as_json=as_json), flush=follow)
    except NotFound:
        # No log yet, or no such thing: the second deserves an error that says so.
        job = endpoint_or_job(session, name)
        what = f"Endpoint {name!r}" if job is None else job.title
        _common.say(f"{what} has written nothing yet.")


def _source(session: Session, name: str) -> Source:
    """An endpoint's log is read even when the endpoint is gone."""
    from ridgeline._logs import of_endpoint

    try:
        job = endpoint_or_job(session, name)
    except NotFound:
        return of_endpoint(name)
    return of_endpoint(name) if job is None else job.source


def _text(line: LogLine, *, times: bool, as_json: bool) -> str:
    when = datetime.fromtimestamp(line.timestamp_ms / 1000, UTC)
    if as_json:
        body = {"time": when.isoformat(), "stream": line.stream, "message": line.text}
        return json.dumps(body, ensure_ascii=False)
    if times:
        return f"{when:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + f"Z {line.stream}  {line.text}"
    return line.text
