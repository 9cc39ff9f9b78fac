"""The stage table of one replica while it starts: what runs, how far, how long each took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ridgeline_service.control.names import Clock, to_micros
from ridgeline_service.control.staging import ENVIRONMENT_STAGE
from ridgeline_service.store.records import Stage

FLUSH_S = 0.5


class StageTable:
    """Hands the table to ``save`` when a stage begins, and at most twice a second in between."""

    def __init__(self, clock: Clock, save: Callable[[tuple[Stage, ...]], None]) -> None:
        self._clock = clock
        self._save = save
        self._stages: list[Stage] = []
        self._began = 0.0
        self._saved = 0.0

    def report(self, name: str, done: int, total: int) -> None:
        """A stage that is not the last one begins; the one before it is done."""
        begins = not self._stages or self._stages[-1].name != name
        if begins:
            self._close("done")
            self._stages.append(Stage(name, began=to_micros(self._clock())))
            self._began = self._clock()
        self._stages[-1] = replace(self._stages[-1], progress=done, total=total)
        if begins or self._clock() - self._saved >= FLUSH_S:
            self._saved = self._clock()
            self._save(tuple(self._stages))

    def close(self, state: str = "done") -> tuple[Stage, ...]:
        self._close(state)
        return tuple(self._stages)

    def _close(self, state: str) -> None:
        if self._stages and self._stages[-1].state == "running":
            seconds = round(self._clock() - self._began, 3)
            self._stages[-1] = replace(self._stages[-1], state=state, seconds=seconds)


class DownloadLimit:
    """The variant's time for its model data. Installing the image's environment, which happens
    once on a machine, does not count."""

    def __init__(self, clock: Clock, seconds: float, table: StageTable) -> None:
        self._clock = clock
        self._seconds = seconds
        self._table = table
        self._deadline: float | None = None

    def report(self, stage: str, done: int, total: int) -> None:
        if self._deadline is None and stage != ENVIRONMENT_STAGE:
            self._deadline = self._clock() + self._seconds
        self._table.report(stage, done, total)

    def passed(self) -> bool:
        return self._deadline is not None and self._clock() >= self._deadline


def ended(stages: tuple[Stage, ...], now: int) -> tuple[Stage, ...]:
    """The stages of a start that failed at ``now``: what was running then is what failed."""
    return tuple(_failed(stage, now) if stage.state == "running" else stage for stage in stages)


def _failed(stage: Stage, now: int) -> Stage:
    seconds = round((now - stage.began) / 1e6, 3) if stage.began else stage.seconds
    return replace(stage, state="failed", seconds=max(seconds, stage.seconds))
