"""Keeps processes that outlive the control plane: starts each under a shim, finds them again after
a restart, ends them.

What is run, and why, is the caller's: a keeper is handed the shim's orders. All it knows of a
process lies in the process's folder under ``root``, so that whoever opens the same root knows it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from urllib.parse import quote

from ridgeline.errors import InternalError, NotReady, Unavailable
from ridgeline_service.files import write_atomic
from ridgeline_service.paths import DataDir, is_of
from ridgeline_service.processes import ProcessId, find_by_command
from ridgeline_service.runtime import shim

LOG_LIMIT_BYTES = 512 << 20
_KILL_WAIT_S = 10.0
_START_WAIT_S = 10.0
_POLL_S = 0.01


@dataclass(frozen=True)
class ProcessRecord:
    """A shim: ``pid`` and ``start_time`` (clock ticks since boot) name one process. ``port`` is 0
    where nothing listens."""

    id: str
    pid: int
    start_time: int
    token: str
    port: int = 0


@dataclass(frozen=True)
class ExitStatus:
    """How a process ended: its exit code, or the signal that ended it; both where only one of them
    is true and nobody can tell which (``shim.ending``). ``at``: epoch seconds."""

    code: int | None
    signal: int | None
    at: float

    @property
    def words(self) -> str:
        if self.signal is None:
            return f"exited with status {self.code}"
        name = shim.signal_name(self.signal)
        if self.code is None:
            return f"was ended by {name}"
        return f"exited with status {self.code}, or was ended by {name}"


class ProcessKeeper:
    """Processes under one root folder. Thread-safe; methods may block for the time they name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._started: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def folder(self, id_: str) -> Path:
        """Where all of a process lies. Raises InternalError for what cannot be an id."""
        if not id_ or "/" in id_ or id_.startswith("."):
            raise InternalError(f"{id_!r} cannot be the id of a process.")
        return self._root / id_

    def make_scratch(self, id_: str) -> Path:
        """The folder of a process that is about to be started, and its room on disk in it.

        Raises InternalError if it was started before."""
        folder = self.folder(id_)
        if (folder / "spec.json").exists():
            raise InternalError(f"Process {id_!r} was started before.")
        scratch = folder / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        return scratch

    def start(self, order: shim.Spec) -> ProcessRecord:
        """Start a process. Raises Unavailable when none can be started."""
        folder = self.folder(order.id)
        write_atomic(folder / "spec.json", json.dumps(asdict(order)), mode=0o600)
        try:
            process = self._spawn(folder)
        except OSError as error:
            raise Unavailable(f"Process {order.id!r} could not be started: {error}") from None
        with self._lock:
            self._started[process.pid] = process
        start_time = shim.start_time(process.pid)
        return ProcessRecord(order.id, process.pid, start_time, order.token, order.port)

    def records(self) -> list[ProcessRecord]:
        """Processes that still live, whoever started them."""
        found = []
        for path in sorted(self._root.glob("*/spec.json")):
            record = _read_record(path.parent)
            if record is not None and self.alive(record):
                found.append(record)
        return found

    def ids(self) -> list[str]:
        """Of all that were started and not removed whole, dead or alive: whoever removes one may be
        killed half-way."""
        return sorted(path.name for path in self._root.iterdir()) if self._root.is_dir() else []

    def alive(self, record: ProcessRecord) -> bool:
        """Whether this very process (not another with its pid) runs, and is one of this root: a
        copy of a root, and of rows that name its processes, has none of them."""
        self._reap(record.pid)
        return ProcessId(record.pid, record.start_time).alive() and self._is_own(record)

    def exit_status(self, id_: str) -> ExitStatus | None:
        """How it ended; None while it runs, or when its shim was killed before it could say."""
        try:
            raw = json.loads((self.folder(id_) / "exit.json").read_text())
            return ExitStatus(code=raw["code"], signal=raw["signal"], at=raw["at"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):  # or its disk did not keep it
            return None

    def ask_to_stop(self, record: ProcessRecord) -> None:
        """SIGTERM, and no waiting."""
        self._signal(record, signal.SIGTERM)

    def stop(self, record: ProcessRecord, grace_s: float) -> None:
        """Ask it to finish, and kill all of it after ``grace_s`` seconds. Returns when it is gone;
        idempotent."""
        own = self._is_own(record)
        if grace_s > 0:
            self.ask_to_stop(record)
        if not self._wait(record, grace_s):
            self._signal(record, signal.SIGUSR1)
            if not self._wait(record, _KILL_WAIT_S):
                self._signal(record, signal.SIGKILL)
                self._wait(record, _KILL_WAIT_S)
        if own:
            _kill_by_token(record.token)

    def remove(self, id_: str) -> None:
        """Forget an ended process and delete its folder. Raises NotReady while it runs."""
        folder = self.folder(id_)
        record = _read_record(folder)
        if record is not None:
            if self.alive(record):
                raise NotReady(
                    f"Process {id_!r} still runs (pid {record.pid}).", hint="Stop it first."
                )
            _kill_by_token(record.token)
        _delete(folder)

    def _spawn(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start the shim and wait until it has recorded itself: from then on it is adoptable."""
        reader, writer = os.pipe()
        try:
            with open(folder / "shim.log", "ab") as log:
                process = subprocess.Popen(
                    (sys.executable, "-I", "-S", shim.__file__, str(folder), str(writer)),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(writer,),
                    start_new_session=True,
                    cwd="/",
                    env={"LANG": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)},
                )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        try:
            if not os.read(reader, 1):
                process.wait(timeout=_START_WAIT_S)
                tail = (folder / "shim.log").read_text(errors="replace").strip()
                raise OSError(tail.rpartition("\n")[2] or "its parent process ended at once")
        finally:
            os.close(reader)
        return process

    def _signal(self, record: ProcessRecord, number: signal.Signals) -> None:
        """Signal this very process, by a handle that no other process can take over."""
        try:
            handle = os.pidfd_open(record.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive(record):
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return
        finally:
            os.close(handle)

    def _wait(self, record: ProcessRecord, timeout_s: float) -> bool:
        """Whether it is gone within ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while self.alive(record):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _is_own(self, record: ProcessRecord) -> bool:
        """Whether it was started under this root."""
        folder = self.folder(record.id)
        try:
            return is_of(json.loads((folder / "process.json").read_text()), folder)
        except (FileNotFoundError, ValueError, AttributeError):
            return ProcessId(record.pid, record.start_time) in _shims_of(folder)

    def _reap(self, pid: int) -> None:
        with self._lock:
            process = self._started.get(pid)
            if process is not None and process.poll() is not None:
                del self._started[pid]


def log_file(data_dir: DataDir, group: str, stream: str) -> Path:
    """The file of one log stream; names are quoted so that a slash makes no folder."""
    return data_dir.log_groups / quote(group, safe="") / f"{quote(stream, safe='')}.jsonl"


def _read_record(folder: Path) -> ProcessRecord | None:
    """None in a copy of the folder that it was written in, and where nothing was started."""
    try:
        raw = json.loads((folder / "process.json").read_text())
        record = ProcessRecord(**{each.name: raw[each.name] for each in fields(ProcessRecord)})
        return record if is_of(raw, folder) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return _found_again(folder)


def _found_again(folder: Path) -> ProcessRecord | None:
    """A process that has not recorded itself yet, or whose record the disk lost, by the order that
    it was started with."""
    try:
        order = shim.read_spec(str(folder / "spec.json"))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    for shim_ in _shims_of(folder):
        return ProcessRecord(order.id, shim_.pid, shim_.start_time, order.token, order.port)
    return None


def _shims_of(folder: Path) -> list[ProcessId]:
    """By their command lines."""
    return find_by_command(f"{Path(shim.__file__).name} {folder} ")


def _kill_by_token(token: str) -> None:
    """Kill what a process without a PID namespace left behind when its shim was killed: everything
    it started has the token in its environment, under whatever name."""
    wanted = f"={token}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if any(entry.endswith(wanted) for entry in path.read_bytes().split(b"\0")):
                os.kill(int(path.parent.name), signal.SIGKILL)
        except (OSError, ValueError):  # another user's process, or one that has just ended
            continue


def _delete(folder: Path) -> None:
    """Delete a tree in which user code may have taken its own write permissions away."""
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
