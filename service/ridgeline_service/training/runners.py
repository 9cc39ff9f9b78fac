"""Starts job runners as processes of this machine, finds them again, and ends them.

``Runners`` is the seam: what the control plane needs of any way to run a job's instances.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ridgeline_service.paths import DataDir
from ridgeline_service.runtime import pip, shim
from ridgeline_service.runtime.ends import Ends
from ridgeline_service.runtime.keeper import (
    LOG_LIMIT_BYTES,
    ExitStatus,
    ProcessKeeper,
    ProcessRecord,
    log_file,
)
from ridgeline_service.snapshot import Credential
from ridgeline_service.training import report, standby
from ridgeline_service.training.causes import Cause
from ridgeline_service.training.order import (
    STORE_KEY,
    STORE_SECRET,
    STORE_URL,
    TOKEN,
    Order,
    write_order,
)
from ridgeline_service.training.report import Report
from ridgeline_service.training.standby import Standby

# The runner itself keeps the grace between a stop and a kill; this only bounds a runner that hangs.
_SHIM_GRACE_S = 7 * 24 * 3600.0
_STANDBY_LOG = "waiting.jsonl"
_NEEDED = frozenset({"PATH", "HOME", "LANG", "XDG_CONFIG_HOME", *pip.CARRIED})


@dataclass(frozen=True)
class Store:
    """Where the runners find the object store, and the key they use there."""

    url: str
    credential: Credential


@dataclass(frozen=True)
class RunnerSpec:
    """One runner to start; ``id`` names it for good."""

    id: str
    token: str
    order: Order
    log_group: str
    log_stream: str


@dataclass(frozen=True)
class StandbySpec:
    """A runner that is to wait for its order, and ``what`` it makes ready."""

    id: str
    token: str
    what: Standby


class Runners(ABC):
    """A way to run job runners. Methods are thread-safe and may block for the time they name."""

    @abstractmethod
    def start(self, spec: RunnerSpec) -> ProcessRecord:
        """Start a runner. Raises Unavailable when no process can be started."""

    @abstractmethod
    def prepare(self, spec: StandbySpec) -> ProcessRecord:
        """Start a runner that waits. Raises Unavailable when no process can be started."""

    @abstractmethod
    def is_ready(self, id_: str) -> bool:
        """Whether a runner that waits has everything ready."""

    @abstractmethod
    def waits(self, id_: str) -> bool:
        """Whether this runner has been given no order yet."""

    @abstractmethod
    def employ(self, spec: RunnerSpec) -> None:
        """Give a runner that waits its order; again if need be, as it is the same one."""

    @abstractmethod
    def records(self) -> list[ProcessRecord]:
        """Runners that still live, whoever started them."""

    @abstractmethod
    def ids(self) -> list[str]:
        """Of all runners that were started and not removed, dead or alive."""

    @abstractmethod
    def alive(self, record: ProcessRecord) -> bool:
        """Whether this very process runs."""

    @abstractmethod
    def tell_end(self, record: ProcessRecord, ended: Callable[[], None]) -> bool:
        """Call ``ended`` once when it is gone; again and again asked for, once told. False where
        that cannot be told."""

    @abstractmethod
    def exit_status(self, id_: str) -> ExitStatus | None:
        """How it ended; None while it runs, or when its shim was killed before it could say."""

    @abstractmethod
    def report(self, id_: str) -> Report | None:
        """What it said last; None before it said anything."""

    @abstractmethod
    def was_interrupted(self, id_: str) -> bool:
        """Whether it was told to end because the service goes down."""

    @abstractmethod
    def ask_to_stop(self, record: ProcessRecord, cause: Cause) -> None:
        """Tell it to stop and why, and do not wait for it."""

    @abstractmethod
    def kill(self, record: ProcessRecord) -> None:
        """End it with everything it started. Returns when it is gone; idempotent."""

    @abstractmethod
    def remove(self, id_: str) -> None:
        """Forget an ended runner and delete its folder. Raises NotReady while it runs."""


class ProcessRunners(Runners):
    """Runners as processes, each under a shim, under one data directory."""

    def __init__(self, data_dir: DataDir, store: Store) -> None:
        self._data_dir = data_dir
        self._store = store
        self._keeper = ProcessKeeper(data_dir.jobs)
        self._ends = Ends()

    def start(self, spec: RunnerSpec) -> ProcessRecord:
        self._keeper.make_scratch(spec.id)
        write_order(self._keeper.folder(spec.id), spec.order)
        log = log_file(self._data_dir, spec.log_group, spec.log_stream)
        return self._spawn(spec.id, spec.token, log)

    def prepare(self, spec: StandbySpec) -> ProcessRecord:
        self._keeper.make_scratch(spec.id)
        folder = self._keeper.folder(spec.id)
        standby.make_ready(folder, spec.what)
        return self._spawn(spec.id, spec.token, folder / _STANDBY_LOG)

    def is_ready(self, id_: str) -> bool:
        return standby.is_ready(self._keeper.folder(id_))

    def waits(self, id_: str) -> bool:
        return standby.waits(self._keeper.folder(id_))

    def employ(self, spec: RunnerSpec) -> None:
        folder = self._keeper.folder(spec.id)
        log = log_file(self._data_dir, spec.log_group, spec.log_stream)
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (folder / _STANDBY_LOG).exists():
            # Its shim writes on to the same file under the name that it will have.
            (folder / _STANDBY_LOG).rename(log)
        write_order(folder, spec.order)
        standby.wake(folder)

    def _spawn(self, id_: str, token: str, log: Path) -> ProcessRecord:
        folder = self._keeper.folder(id_)
        wanted = {
            STORE_URL: self._store.url,
            STORE_KEY: self._store.credential.access_key_id,
            STORE_SECRET: self._store.credential.secret_access_key,
            TOKEN: token,
        }
        return self._keeper.start(
            shim.Spec(
                id=id_,
                token=token,
                port=0,
                command=shim.Command(
                    (sys.executable, "-P", "-m", "ridgeline_service.training", str(folder))
                ),
                environment={**_own_environment(), **wanted, "PYTHONUNBUFFERED": "1"},
                cwd="/",
                listen=False,
                data_bytes=None,
                processes=None,
                grace_s=_SHIM_GRACE_S,
                log_file=str(log),
                log_limit_bytes=LOG_LIMIT_BYTES,
            )
        )

    def records(self) -> list[ProcessRecord]:
        return self._keeper.records()

    def ids(self) -> list[str]:
        return self._keeper.ids()

    def alive(self, record: ProcessRecord) -> bool:
        return self._keeper.alive(record)

    def tell_end(self, record: ProcessRecord, ended: Callable[[], None]) -> bool:
        return self._ends.tell(record.pid, ended)

    def exit_status(self, id_: str) -> ExitStatus | None:
        return self._keeper.exit_status(id_)

    def report(self, id_: str) -> Report | None:
        return report.read_report(self._keeper.folder(id_))

    def was_interrupted(self, id_: str) -> bool:
        return report.asked_for_stop(self._keeper.folder(id_)) is Cause.INTERRUPTED

    def ask_to_stop(self, record: ProcessRecord, cause: Cause) -> None:
        report.ask_for_stop(self._keeper.folder(record.id), cause)
        self._keeper.ask_to_stop(record)

    def kill(self, record: ProcessRecord) -> None:
        self._keeper.stop(record, 0)

    def remove(self, id_: str) -> None:
        self._keeper.remove(id_)


def _own_environment() -> dict[str, str]:
    """What of the service's environment its runners need: to find programs, and to install
    packages as the service would."""
    return {name: value for name, value in os.environ.items() if _is_needed(name)}


def _is_needed(name: str) -> bool:
    return name in _NEEDED or name.startswith(("PIP_", "RIDGELINE_PIP"))
