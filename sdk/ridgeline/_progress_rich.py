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
from ridgeline._trials import Search, TrialsDisplay, short

_TRIALS_SHOWN = 20
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

    @contextmanager
    def trials(self, title: str) -> Iterator[TrialsDisplay]:
        with Live(console=self._console, refresh_per_second=4) as live:
            yield _RichTrials(live, title)

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
        if view.waits_for:
            shown.append(Text(f"  {view.waits_for}", style="dim"))
        self._live.update(Group(*shown))

    def _mark(self, stage: Stage) -> RenderableType:
        if stage.state == "running":
            return self._spinner
        mark, style = _MARKS.get(stage.state, ("·", "dim"))
        return Text(mark, style=style)


class _RichTrials:
    """A table of the trials, of which the last ones show."""

    def __init__(self, live: Live, title: str) -> None:
        self._live = live
        self._title = title

    def update(self, search: Search) -> None:
        names = list(dict.fromkeys(name for trial in search.trials for name in trial.parameters))
        table = Table("trial", *names, search.metric, "time", "status", box=None)
        for trial in search.trials[-_TRIALS_SHOWN:]:
            value = "" if trial.objective is None else f"{trial.objective:.6g}"
            best = trial.name == search.best
            table.add_row(
                trial.name.removeprefix(f"{search.name}-"),
                *(short(trial.parameters.get(name, "")) for name in names),
                f"{value} ★" if best else value,
                stage_text(trial.seconds),
                trial.status,
                style="bold green" if best else "red" if trial.status == "Failed" else None,
            )
        ended = sum(trial.ended for trial in search.trials)
        most = "" if search.most is None else f" of {search.most}"
        foot = Text(f"  {search.status}: {ended}{most} trials have ended", style="dim")
        self._live.update(Group(Text(self._title, style="bold"), table, foot))


def _measure(stage: Stage) -> RenderableType:
    if stage.state == "running" and stage.fraction is not None:
        return ProgressBar(total=1.0, completed=stage.fraction, width=30)
    said = stage_text(stage.seconds), stage.detail
    return Text("  ".join(filter(None, said)), style="dim")
