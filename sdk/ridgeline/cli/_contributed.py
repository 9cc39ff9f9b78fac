"""Commands that other packages contribute, by the entry-point group ``ridgeline.commands``.

Their names are known from the metadata of what is installed; their modules are imported when one is
run or asked for help, so the client stays light. Where an extra is missing, the command exists all
the same and answers with the line to run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

import typer
from typer.core import TyperCommand

from ridgeline.errors import Unsupported

_GROUP = "ridgeline.commands"
# One line each for the list of commands, which is printed without importing anything.
_SUMMARIES = {
    "up": "Start the service.",
    "down": "Stop the service and everything it runs.",
    "env": "Print the environment variables that a shell needs.",
    "doctor": "Show what this machine can run, and what is missing.",
    "compile": "Compile a model for a simulated Neuron instance.",
    "plan": "Rank simulated Neuron instances for a model by cost.",
    "neuron": "What simulated devices are, do and would take: ls, simulate, top, profile, ...",
}
_EXTRAS = {"ridgeline_service": "service", "ridgeline_backends": "cpu"}
_PANELS = {"ridgeline_backends": "Accelerators, simulated"}


class _Command(Protocol):
    params: list[Any]

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any: ...


class ContributedCommand(TyperCommand):
    """Stands in for a command until it is used."""

    def __init__(self, entry_point: EntryPoint) -> None:
        name, package = entry_point.name, entry_point.module.partition(".")[0]
        super().__init__(
            name=name,
            help=_SUMMARIES.get(name, f"Provided by {package}."),
            rich_help_panel=_PANELS.get(package, "Service"),
        )
        self._entry_point = entry_point

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """The context of the real command, with the options given before its name."""
        command = self._load()
        given = getattr(parent, "obj", None)
        if isinstance(given, GlobalOptions):
            extra["default_map"] = given.defaults_for(command)
        return command.make_context(info_name, args, parent=parent, **extra)

    def _load(self) -> _Command:
        try:
            target = self._entry_point.load()
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("ridgeline"):
                raise
            root = self._entry_point.module.partition(".")[0]
            extra = _EXTRAS.get(root, "service")
            raise Unsupported(
                f"`ridgeline {self.name}` needs {error.name}, which is not installed.",
                hint=f"pip install 'ridgeline[{extra}]'",
            ) from error
        if isinstance(target, typer.Typer):
            return _as_command(target)
        app = typer.Typer(add_completion=False)
        app.command(self.name)(target)
        return _as_command(app)


class GlobalOptions:
    """Options given before the command's name: they become the defaults of its own."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = {option: value for option, value in values.items() if value}

    def defaults_for(self, command: Any) -> dict[str, Any]:
        """Defaults for ``command`` and all below it, in the form typer's contexts want."""
        defaults: dict[str, Any] = {}
        for param in command.params:
            for option in param.opts:
                if option in self._values:
                    defaults[param.name] = self._values[option]
        for name, child in getattr(command, "commands", {}).items():
            below = self.defaults_for(child)
            if below:
                defaults[name] = below
        return defaults


def contributed() -> Iterable[ContributedCommand]:
    """The commands of all installed packages, by name."""
    found = {entry_point.name: entry_point for entry_point in entry_points(group=_GROUP)}
    return [ContributedCommand(found[name]) for name in sorted(found)]


def _as_command(app: typer.Typer) -> _Command:
    command: _Command = typer.main.get_command(app)
    return command
