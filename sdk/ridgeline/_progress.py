"""How a wait shows how far it is.

``Progress`` is all that waits know. ``SilentProgress`` is its twin that shows nothing, so that no
line of logic ever asks whether somebody is watching. Everything goes to standard error: standard
output belongs to results.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import IO, Protocol

from ridgeline._endpoints import EndpointView
from ridgeline._trials import PlainTrials, TrialsDisplay


class Display(Protocol):
    """One wait's display."""

    def update(self, view: EndpointView) -> None:
        """Show this look at the endpoint. Called at every poll."""


class Progress(ABC):
    """Makes displays, and says what a reader should know."""

    @abstractmethod
    def waiting(self, title: str) -> AbstractContextManager[Display]:
        """A display that lives as long as the wait does."""

    def trials(self, title: str) -> AbstractContextManager[TrialsDisplay]:
        """The same for a search: a line for each trial that has ended."""
        self.note(title)
        return nullcontext(PlainTrials(self.note))

    @abstractmethod
    def note(self, text: str) -> None:
        """A line for the reader that is no result."""


class SilentProgress(Progress):
    """Shows nothing."""

    @contextmanager
    def waiting(self, title: str) -> Iterator[Display]:
        yield _NoDisplay()

    def note(self, text: str) -> None:
        return None


class PlainProgress(Progress):
    """One line for every change of stage: for logs, pipes and dumb terminals."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream

    @contextmanager
    def waiting(self, title: str) -> Iterator[Display]:
        self.note(title)
        yield _PlainDisplay(self)

    def note(self, text: str) -> None:
        print(text, file=self._stream or sys.stderr, flush=True)


class AutoProgress(Progress):
    """Rich on a terminal, plain lines elsewhere; decided when a wait begins."""

    def waiting(self, title: str) -> AbstractContextManager[Display]:
        return self._chosen().waiting(title)

    def trials(self, title: str) -> AbstractContextManager[TrialsDisplay]:
        return self._chosen().trials(title)

    def note(self, text: str) -> None:
        PlainProgress().note(text)

    def _chosen(self) -> Progress:
        if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return PlainProgress()
        from ridgeline._progress_rich import RichProgress  # rich: only where it can be seen

        return RichProgress()


def default_progress() -> Progress:
    return AutoProgress()


def stage_text(seconds: float | None) -> str:
    """Seconds as a reader wants them; empty if they are not known."""
    return "" if seconds is None else f"{seconds:.1f} s"


class _NoDisplay:
    def update(self, view: EndpointView) -> None:
        return None


class _PlainDisplay:
    def __init__(self, progress: PlainProgress) -> None:
        self._progress = progress
        self._shown: dict[str, str] = {}
        self._status = ""
        self._waits_for = ""

    def update(self, view: EndpointView) -> None:
        for stage in view.stages:
            if stage.state == "waiting" or self._shown.get(stage.name) == stage.state:
                continue
            self._shown[stage.name] = stage.state
            took = stage_text(stage.seconds) if stage.state != "running" else ""
            said = f"  {stage.name}: {stage.state}", took, stage.detail
            self._progress.note("  ".join(filter(None, said)))
        if view.status != self._status:
            self._status = view.status
            self._progress.note(f"  {view.name} is {view.status}")
        if view.waits_for and view.waits_for != self._waits_for:
            self._waits_for = view.waits_for
            self._progress.note(f"  {view.waits_for}")
