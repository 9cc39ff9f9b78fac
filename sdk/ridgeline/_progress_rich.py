"""The display on a terminal: a table of stages that is redrawn in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ridgeline._endpoints import EndpointView, Stage
from ridgeline._progress import Display, Progress, stage_text

_MARKS = {"done": ("✓", "green"), "failed": ("✗", "red"), "waiting": ("·", "dim")}


class RichProgress(Progress):
    """Redraws the stages of the endpoint on standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)

    @contextmanager
    def waiting(self, title: str) -> Iterator[Display]:
        with Live(console=self._console, refresh_per_second=8) as live:
            display = _RichDisplay(live, title)
            yield display

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


class _RichDisplay:
    def __init__(self, live: Live, title: str) -> None:
        self._live = live
        self._title = title
        # One spinner for the life of the display: a new one at each redraw would not turn.
        self._spinner = Spinner("dots", style="cyan")
        self._live.update(Group(Text(title, style="bold"), self._spinner))

    def update(self, view: EndpointView) -> None:
        table = Table.grid(padding=(0, 2))
        for stage in view.stages:
            table.add_row(self._mark(stage), Text(stage.name), _measure(stage))
        settled = view.status in ("InService", "Failed")
        foot = Text(f"  {view.status}", style="green" if view.status == "InService" else "bold")
        shown: list[RenderableType] = [Text(self._title, style="bold"), table]
        if settled:
            shown.append(foot)
        elif not view.stages:
            shown.append(self._spinner)
        self._live.update(Group(*shown))

    def _mark(self, stage: Stage) -> RenderableType:
        if stage.state == "running":
            return self._spinner
        mark, style = _MARKS.get(stage.state, ("·", "dim"))
        return Text(mark, style=style)


def _measure(stage: Stage) -> RenderableType:
    if stage.state == "running" and stage.fraction is not None:
        return ProgressBar(total=1.0, completed=stage.fraction, width=30)
    return Text(stage_text(stage.seconds), style="dim")
