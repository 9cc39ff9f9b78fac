"""``ridgeline logs``: what an endpoint's replicas wrote."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir, EndpointName
from ridgeline.errors import NotFound

if TYPE_CHECKING:
    from ridgeline._logs import LogLine


def logs(
    endpoint: EndpointName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="Lines to begin with.")] = 100,
    times: Annotated[bool, typer.Option("--times", "-t", help="Show when and who.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the log of an endpoint; with --json, one object a line."""
    session = _common.open_session(data_dir)
    from ridgeline import _endpoints, _logs  # boto3: not for --help

    try:
        lines = (
            _logs.follow(session, endpoint, tail) if follow else _logs.tail(session, endpoint, tail)
        )
        for line in lines:
            print(_text(line, times=times, as_json=as_json), flush=follow)
    except NotFound:
        # No log yet, or no such endpoint: the second deserves an error that says so.
        _endpoints.describe(session, endpoint)
        _common.say(f"Endpoint {endpoint!r} has written nothing yet.")


def _text(line: LogLine, *, times: bool, as_json: bool) -> str:
    when = datetime.fromtimestamp(line.timestamp_ms / 1000, UTC)
    if as_json:
        body = {"time": when.isoformat(), "stream": line.stream, "message": line.text}
        return json.dumps(body, ensure_ascii=False)
    if times:
        return f"{when:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + f"Z {line.stream}  {line.text}"
    return line.text
