"""The ``ridgeline`` command: puts the commands together and turns errors into exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import ridgeline
from ridgeline.cli import (
    _common,
    chat,
    delete,
    deploy,
    describe,
    invoke,
    jobs,
    keys,
    logs,
    ls,
    scale,
    train,
    tune,
    zoo,
)
from ridgeline.cli._contributed import GlobalOptions, contributed
from ridgeline.errors import RidgelineError


class RidgelineGroup(TyperGroup):
    """The root: finds contributed commands when they are asked for, and lets no traceback out."""

    _looked = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = self.commands.get(cmd_name)
        if found is None:
            self._look()
            found = self.commands.get(cmd_name)
        return found

    def list_commands(self, ctx: Any) -> list[str]:
        self._look()
        return super().list_commands(ctx)

    def main(self, args: Any = None, *rest: Any, **named: Any) -> Any:
        given = sys.argv[1:] if args is None else list(args)
        try:
            return super().main(args, *rest, **named)
        except RidgelineError as error:
            sys.exit(_common.report(error, as_json="--json" in given))
        except KeyboardInterrupt:
            sys.exit(_common.INTERRUPTED)
        except Exception as error:  # noqa: BLE001 - the last border: no user reads a traceback
            sys.exit(_report_bug(error))

    def _look(self) -> None:
        if not self._looked:
            self._looked = True
            for command in contributed():
                if command.name is not None:
                    self.commands.setdefault(command.name, command)


app = typer.Typer(
    name="ridgeline",
    cls=RidgelineGroup,
    help="Train machine-learning models, deploy them and talk to them, on a service that you own.",
    epilog=_common.EXIT_CODES_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_MODELS, _JOBS, _MORE = "Endpoints", "Training", "Zoo and keys"
app.command("deploy", rich_help_panel=_MODELS)(deploy.deploy)
app.command("chat", rich_help_panel=_MODELS)(chat.chat)
app.command("invoke", rich_help_panel=_MODELS)(invoke.invoke)
app.command("ls", rich_help_panel=_MODELS)(ls.ls)
app.command("describe", rich_help_panel=_MODELS)(describe.describe)
app.command("scale", rich_help_panel=_MODELS)(scale.scale)
app.command("logs", rich_help_panel=_MODELS)(logs.logs)
app.command("delete", rich_help_panel=_MODELS)(delete.delete)
app.command("train", rich_help_panel=_JOBS)(train.train)
app.command("tune", rich_help_panel=_JOBS)(tune.tune)
app.command("jobs", rich_help_panel=_JOBS)(jobs.jobs)
app.command("stop", rich_help_panel=_JOBS)(jobs.stop)
app.add_typer(zoo.app, name="zoo", rich_help_panel=_MORE)
app.add_typer(keys.app, name="keys", rich_help_panel=_MORE)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Data directory of the service."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        if as_json:
            _common.print_json({"version": ridgeline.__version__})
        else:
            print(ridgeline.__version__)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        ctx.fail("Missing command.")
    options = GlobalOptions({"--data-dir": data_dir, "--json": as_json})
    ctx.obj = options
    ctx.default_map = options.defaults_for(ctx.command)


def main() -> None:
    """Run the command line of this process."""
    try:
        app()
    finally:
        _flush()


def _flush() -> None:
    """Write out what is buffered; a reader that has gone (``| head``) is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes again on its way out and would complain about the same pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_bug(error: Exception) -> int:
    if os.environ.get("RIDGELINE_DEBUG") == "1":
        traceback.print_exception(error)
    _common.say(
        f"error: {type(error).__name__}: {error}\n"
        "This is a bug of Ridgeline. RIDGELINE_DEBUG=1 shows where it happened."
    )
    return _common.FAILED
