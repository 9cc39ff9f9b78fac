"""What a runner tells the control plane: how far it is and how it ended, in one small file.

The runner alone writes it, by replacing it; whoever reads it sees a whole one. A stop goes the
other way, as a file that says why, beside the signal that says now.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ridgeline_service.files import write_atomic
from ridgeline_service.training.causes import Cause

Outcome = Literal["completed", "failed", "stopped", "interrupted"]

_FILE = "report.json"
_STOP = "stop.json"


@dataclass(frozen=True)
class Transition:
    """A secondary status of SageMaker's, since ``at`` (microseconds since the epoch)."""

    status: str
    at: int
    message: str


@dataclass(frozen=True)
class MetricValue:
    """The last value of a metric; ``at`` in microseconds since the epoch."""

    name: str
    value: float
    at: int


@dataclass(frozen=True)
class Ending:
    """``message`` is the whole FailureReason, empty where nothing failed."""

    outcome: Outcome
    cause: Cause
    message: str
    at: int


@dataclass(frozen=True)
class Report:
    """``artifacts`` is where the model was uploaded to, empty until it was; ``exit_message`` what a
    processing script left to be shown."""

    transitions: tuple[Transition, ...] = ()
    training_started_at: int | None = None
    training_ended_at: int | None = None
    metrics: tuple[MetricValue, ...] = ()
    artifacts: str = ""
    exit_message: str = ""
    ending: Ending | None = None


class Reporter:
    """Writes the report at every change; thread-safe. ``now`` gives microseconds of the epoch."""

    def __init__(self, folder: Path, now: Callable[[], int]) -> None:
        self._path = folder / _FILE
        self._now = now
        self._report = Report()
        self._lock = threading.RLock()

    @property
    def report(self) -> Report:
        return self._report

    def enter(self, status: str, message: str) -> None:
        with self._lock:
            moment = Transition(status, self._now(), message)
            self.change(transitions=(*self._report.transitions, moment))

    def enter_once(self, status: str, message: str) -> None:
        """``enter``, unless it is there already."""
        with self._lock:
            if all(moment.status != status for moment in self._report.transitions):
                self.enter(status, message)

    def change(self, **values: Any) -> None:
        """Replace fields of the report, and write it."""
        with self._lock:
            self._report = replace(self._report, **values)
            write_atomic(self._path, json.dumps(asdict(self._report)), mode=0o600)

    def end(self, outcome: Outcome, cause: Cause = Cause.NONE, message: str = "") -> None:
        self.change(ending=Ending(outcome, cause, message, self._now()))


def read_report(folder: Path) -> Report | None:
    """None before the runner has said anything."""
    try:
        raw = json.loads((folder / _FILE).read_text())
    except FileNotFoundError:
        return None
    ending = raw["ending"]
    return Report(
        transitions=tuple(Transition(**item) for item in raw["transitions"]),
        training_started_at=raw["training_started_at"],
        training_ended_at=raw["training_ended_at"],
        metrics=tuple(MetricValue(**item) for item in raw["metrics"]),
        artifacts=raw["artifacts"],
        exit_message=raw["exit_message"],
        ending=None if ending is None else Ending(**{**ending, "cause": Cause(ending["cause"])}),
    )


def ask_for_stop(folder: Path, cause: Cause) -> None:
    """Say why the runner is about to be told to stop. The first reason stays."""
    path = folder / _STOP
    if folder.is_dir() and not path.exists():
        write_atomic(path, json.dumps({"cause": cause}), mode=0o600)


def asked_for_stop(folder: Path) -> Cause | None:
    """Why it was told to stop; None if nobody asked for it, as when the service shuts down."""
    try:
        return Cause(json.loads((folder / _STOP).read_text())["cause"])
    except FileNotFoundError:
        return None
