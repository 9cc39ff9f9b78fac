"""Runners of jobs that are values: they live in a dictionary, and do what a test says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ridgeline_service.runtime.keeper import ExitStatus, ProcessRecord
from ridgeline_service.training.causes import Cause
from ridgeline_service.training.report import Ending, Report
from ridgeline_service.training.runners import Runners, RunnerSpec, StandbySpec


@dataclass
class FakeRunner:
    spec: RunnerSpec
    record: ProcessRecord
    alive: bool = True
    report: Report | None = None
    exit: ExitStatus | None = None
    asked: list[Cause] = field(default_factory=list)


class FakeRunners(Runners):
    """Runners live here, so they outlive a control plane that is thrown away."""

    def __init__(self) -> None:
        self.running: dict[str, FakeRunner] = {}
        self.started: list[str] = []
        self.waiting: dict[str, ProcessRecord] = {}
        self.employed: list[str] = []
        self.lost: set[str] = set()
        self.slow = False
        """Runners that wait are not ready yet."""
        self.tells = False
        """Whether ends are told."""
        self.told: dict[str, Callable[[], None]] = {}
        self.numbers = itertools.count(1)

    def start(self, spec: RunnerSpec) -> ProcessRecord:
        assert spec.id not in self.running, "started twice"
        number = next(self.numbers)
        record = ProcessRecord(spec.id, number, number, spec.token)
        self.running[spec.id] = FakeRunner(spec, record)
        self.started.append(spec.id)
        return record

    def prepare(self, spec: StandbySpec) -> ProcessRecord:
        assert spec.id not in self.waiting, "prepared twice"
        number = next(self.numbers)
        self.waiting[spec.id] = ProcessRecord(spec.id, number, number, spec.token)
        return self.waiting[spec.id]

    def is_ready(self, id_: str) -> bool:
        return id_ in self.waiting and not self.slow

    def waits(self, id_: str) -> bool:
        return id_ in self.waiting

    def employ(self, spec: RunnerSpec) -> None:
        record = self.waiting.pop(spec.id)
        assert record.token == spec.token
        self.running[spec.id] = FakeRunner(spec, record)
        self.employed.append(spec.id)

    def records(self) -> list[ProcessRecord]:
        running = [runner.record for runner in self.running.values() if runner.alive]
        return running + list(self.waiting.values())

    def ids(self) -> list[str]:
        return [*self.running, *self.waiting, *self.lost]

    def alive(self, record: ProcessRecord) -> bool:
        if self.waiting.get(record.id) == record:
            return True
        runner = self.running.get(record.id)
        return runner is not None and runner.alive and runner.record == record

    def tell_end(self, record: ProcessRecord, ended: Callable[[], None]) -> bool:
        self.told[record.id] = ended
        return self.tells

    def exit_status(self, id_: str) -> ExitStatus | None:
        return self.running[id_].exit if id_ in self.running else None

    def report(self, id_: str) -> Report | None:
        return self.running[id_].report if id_ in self.running else None

    def was_interrupted(self, id_: str) -> bool:
        return False

    def ask_to_stop(self, record: ProcessRecord, cause: Cause) -> None:
        self.running[record.id].asked.append(cause)

    def kill(self, record: ProcessRecord) -> None:
        if self.waiting.pop(record.id, None) is None:
            self.running[record.id].alive = False

    def remove(self, id_: str) -> None:
        self.running.pop(id_, None)
        self.lost.discard(id_)

    # -- what a test lets happen

    def lose_waiting(self) -> None:
        """Those that wait die."""
        self.lost |= set(self.waiting)
        self.waiting.clear()

    def one(self, job: str, host: str = "algo-1") -> FakeRunner:
        return next(
            runner
            for runner in self.running.values()
            if runner.spec.order.job == job and runner.spec.order.host == host
        )

    def end(self, job: str, host: str = "algo-1", **ending: Any) -> None:
        runner = self.one(job, host)
        values = {"outcome": "completed", "cause": Cause.NONE, "message": "", "at": 1, **ending}
        told = runner.report or Report()
        runner.report = replace(told, artifacts="s3://b/m.tar.gz", ending=Ending(**values))
        runner.alive = False
