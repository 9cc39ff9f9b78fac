"""What every command shares: its options, its session, its exit codes, its way to print.

Knows no command. Imports no boto3 at the top, so that ``--help`` and completion stay quick.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ridgeline.errors import (
    AccessDenied,
    AlreadyExists,
    FailedWithLog,
    InvalidInput,
    InvocationFailed,
    NotFound,
    NotReady,
    NotRunning,
    Overloaded,
    RidgelineError,
    Unavailable,
    Unsupported,
)

if TYPE_CHECKING:
    from ridgeline.session import Session

FAILED, USAGE, INTERRUPTED = 1, 2, 130
# The first class that an error is an instance of decides.
_EXIT_CODES: tuple[tuple[type[RidgelineError], int], ...] = (
    (InvalidInput, USAGE),
    (Unsupported, FAILED),
    (Unavailable, 3),
    (NotRunning, 3),
    (NotFound, 4),
    (AccessDenied, 5),
    (AlreadyExists, 6),
    (NotReady, 6),
    (Overloaded, 7),
)
# HTTP statuses that put it down to what was asked.
_WRONG_VALUE = (400, 413, 415, 422)
EXIT_CODES_HELP = (
    "Exit codes: 0 done; 1 it failed, or this machine cannot do it; 2 a wrong argument or value, "
    "also one that the model refuses; 3 no service is running, or it does not answer; 4 not found; "
    "5 access denied; 6 the name is taken, the state does not allow it, or --timeout is over; "
    "7 overloaded, try again; 130 interrupted. RIDGELINE_DEBUG=1 shows tracebacks."
)


def complete_endpoint(incomplete: str) -> list[str]:
    """Names of endpoints that begin with what was typed, for the shell."""
    try:
        session = open_session(None)
        with session.call():
            answer = session.sagemaker_client.list_endpoints(MaxResults=100)
    except RidgelineError:
        # No service, no suggestions: a shell that is completing has no place for errors.
        return []
    names = (str(item["EndpointName"]) for item in answer["Endpoints"])
    return [name for name in names if name.startswith(incomplete)]


def complete_model(incomplete: str) -> list[str]:
    """Ids of the zoo that begin with what was typed, for the shell."""
    from ridgeline.zoo import list_cards  # boto3: only when the shell asks

    try:
        cards = list_cards(open_session(None))
    except RidgelineError:
        return []
    return [str(card["id"]) for card in cards if str(card["id"]).startswith(incomplete)]


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Data directory of the service.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
# What starting a script as a job takes, once or many times.
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="CHANNEL=DATA", help="A folder, a file or an S3 URI."),
]
Framework = Annotated[str, typer.Option("--framework", help="pytorch, huggingface or sklearn.")]
SourceDir = Annotated[
    Path | None,
    typer.Option(
        "--source-dir", help="Folder to send along, with requirements.txt; SCRIPT is in it."
    ),
]
InstanceType = Annotated[str | None, typer.Option("--instance-type", help="Like ml.m5.xlarge.")]
ScriptEnv = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME=VALUE", help="Environment of the script."),
]
EndpointName = Annotated[
    str,
    typer.Argument(
        metavar="ENDPOINT", help="Name of the endpoint.", autocompletion=complete_endpoint
    ),
]


EndpointOrJob = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of an endpoint or a job.",
        autocompletion=complete_endpoint,
    ),
]


def open_session(data_dir: Path | None) -> Session:
    """The session with the service that this command line means."""
    from ridgeline.session import Session  # boto3: only for commands that speak to the service

    return Session(data_dir=data_dir)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, default=_json_default, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Aligned columns on standard output, never cut: they may be read by a script."""
    cells = [[str(cell) for cell in row] for row in rows]
    table = [list(columns), *cells]
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    for row in table:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def say(text: str) -> None:
    """A line for the person, on standard error."""
    print(text, file=sys.stderr, flush=True)


def parse_pairs(pairs: Sequence[str], option: str) -> dict[str, str]:
    """``NAME=value`` options as a mapping. Raises InvalidInput for one without ``=`` or name."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            lacks = "name before its '='" if equals else "'='"
            raise InvalidInput(
                f"{option} {pair!r} has no {lacks}.", hint=f"Like {option} NAME=value."
            )
        found[name] = value
    return found


def report(error: RidgelineError, *, as_json: bool) -> int:
    """Print an error on standard error; the exit code that belongs to it."""
    if isinstance(error, NotFound) and not error.hint and "endpoint" in error.message.lower():
        error.hint = "`ridgeline ls` lists endpoints."
    if os.environ.get("RIDGELINE_DEBUG") == "1":
        traceback.print_exception(error)
    if as_json:
        body: dict[str, object] = {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
        }
        if isinstance(error, FailedWithLog):
            body["log_tail"] = list(error.log_tail)
        say(json.dumps({"error": body}, ensure_ascii=False))
    else:
        say(f"error: {error}")
    return exit_code(error)


def exit_code(error: RidgelineError) -> int:
    """As ``EXIT_CODES_HELP`` says."""
    refused = error.http_status
    if isinstance(error, InvocationFailed):
        refused = error.original_status
    otherwise = USAGE if refused in _WRONG_VALUE else FAILED
    return next((code for cls, code in _EXIT_CODES if isinstance(error, cls)), otherwise)


def _json_default(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
