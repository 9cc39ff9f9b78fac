"""Starts replicas as processes of this machine, finds them again, and ends them.

``Launcher`` is the seam: what the control plane needs of any way to run replicas. The process
launcher starts one shim per replica (see shim.py) that outlives the control plane; all it knows of
a replica lies in its folder under ``DataDir.replicas``. It decides nothing: which replicas should
run, whether one is healthy and what its exit means is the control plane's.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from ridgeline.errors import InternalError, NotReady, Unavailable
from ridgeline_service.files import write_atomic
from ridgeline_service.paths import DataDir
from ridgeline_service.processes import ProcessId
from ridgeline_service.runtime import sandbox as sandboxes
from ridgeline_service.runtime import shim
from ridgeline_service.runtime.images import Kind

LOG_LIMIT_BYTES = 512 << 20
GRACE_S = 35.0  # a server drains for up to 30 s
_KILL_WAIT_S = 10.0
_START_WAIT_S = 10.0
_POLL_S = 0.01


@dataclass(frozen=True)
class ReplicaSpec:
    """One model server to start.

    ``environment`` is the user's container environment; the port, id and token are set by the
    launcher and cannot be overridden. ``model_dir`` is shown read-only at /opt/ml/model in a
    sandbox, and named by RIDGELINE_MODEL_DIR without one. ``overlays`` are package directories put
    first on PYTHONPATH. ``read_only`` are further paths that must be visible inside
    (``Environment.site_dirs``), ``devices`` further device files. ``network=False`` gives a
    framework server a network of its own: it is handed its listening socket
    (RIDGELINE_LISTEN_FD) and can reach nothing. Language-model servers run none of the user's code
    and keep the host's network.
    """

    replica_id: str
    runtime_name: str
    kind: Kind
    python: Path
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    model_dir: Path | None
    port: int
    token: str
    log_group: str
    log_stream: str
    overlays: tuple[Path, ...] = ()
    read_only: tuple[Path, ...] = ()
    memory_bytes: int | None = None
    devices: tuple[Path, ...] = ()
    network: bool = True
    sandbox: bool = True
    grace_s: float = GRACE_S


@dataclass(frozen=True)
class ProcessRecord:
    """A replica's shim: ``pid`` and ``start_time`` (clock ticks since boot) name one process."""

    replica_id: str
    pid: int
    start_time: int
    token: str
    port: int


@dataclass(frozen=True)
class ExitStatus:
    """How a replica ended: its exit code, or the signal that ended it. ``at``: epoch seconds."""

    code: int | None
    signal: int | None
    at: float

    @property
    def words(self) -> str:
        if self.signal is None:
            return f"exited with status {self.code}"
        return f"was ended by {signal.Signals(self.signal).name}"


class Launcher(ABC):
    """A way to run replicas. Methods are thread-safe and may block for the time they name."""

    @abstractmethod
    def start(self, spec: ReplicaSpec) -> ProcessRecord:
        """Start a replica. Raises Unsupported where its sandbox cannot be made, Unavailable when
        no process can be started. The server may still fail: see ``alive`` and ``exit_status``."""

    @abstractmethod
    def records(self) -> list[ProcessRecord]:
        """Replicas that still live, whoever started them."""

    @abstractmethod
    def alive(self, record: ProcessRecord) -> bool:
        """Whether this very process (not another with its pid) runs."""

    @abstractmethod
    def exit_status(self, replica_id: str) -> ExitStatus | None:
        """How it ended; None while it runs, or when its shim was killed before it could say."""

    @abstractmethod
    def stop(self, record: ProcessRecord, grace_s: float) -> None:
        """Ask it to finish, and kill all of it after ``grace_s`` seconds. Returns when it is gone;
        idempotent."""

    @abstractmethod
    def remove(self, replica_id: str) -> None:
        """Forget an ended replica and delete its scratch space. Raises NotReady while it runs."""

    @abstractmethod
    def free_port(self) -> int:
        """A loopback port for the next replica."""


@dataclass
class PortPicker:
    """Free loopback ports outside the kernel's ephemeral range, so that no outgoing connection
    takes one between the choice and the server's bind. Never gives the same one twice in a row."""

    low: int = 18000
    high: int = 32000
    start: Callable[[int, int], int] = random.randint
    _next: int | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def pick(self) -> int:
        with self._lock:
            if self._next is None:
                self._next = self.start(self.low, self.high - 1)
            for _ in range(self.high - self.low):
                port = self._next
                self._next = self.low + (port + 1 - self.low) % (self.high - self.low)
                if _is_free(port):
                    return port
        raise Unavailable(f"No loopback port between {self.low} and {self.high} is free.")


class ProcessLauncher(Launcher):
    """Replicas as processes of this machine, each in its sandbox, under one data directory."""

    def __init__(self, data_dir: DataDir, ports: PortPicker | None = None) -> None:
        self._data_dir = data_dir
        self._ports = ports or PortPicker()
        self._started: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def start(self, spec: ReplicaSpec) -> ProcessRecord:
        folder = self._folder(spec.replica_id)
        if (folder / "spec.json").exists():
            raise InternalError(f"Replica {spec.replica_id!r} was started before.")
        scratch = folder / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        order = self._order(spec, scratch)
        write_atomic(folder / "spec.json", json.dumps(asdict(order)), mode=0o600)
        try:
            process = self._spawn(folder)
        except OSError as error:
            raise Unavailable(
                f"Replica {spec.replica_id!r} could not be started: {error}"
            ) from None
        with self._lock:
            self._started[process.pid] = process
        return ProcessRecord(
            replica_id=spec.replica_id,
            pid=process.pid,
            start_time=shim.start_time(process.pid),
            token=spec.token,
            port=spec.port,
        )

    def records(self) -> list[ProcessRecord]:
        found = []
        for path in sorted(self._data_dir.replicas.glob("*/process.json")):
            record = _read_record(path)
            if record is not None and self.alive(record):
                found.append(record)
        return found

    def alive(self, record: ProcessRecord) -> bool:
        self._reap(record.pid)
        return ProcessId(record.pid, record.start_time).alive()

    def exit_status(self, replica_id: str) -> ExitStatus | None:
        try:
            raw = json.loads((self._folder(replica_id) / "exit.json").read_text())
        except FileNotFoundError:
            return None
        return ExitStatus(code=raw["code"], signal=raw["signal"], at=raw["at"])

    def stop(self, record: ProcessRecord, grace_s: float) -> None:
        if grace_s > 0:
            self._signal(record, signal.SIGTERM)
        if not self._wait(record, grace_s):
            self._signal(record, signal.SIGUSR1)
            if not self._wait(record, _KILL_WAIT_S):
                self._signal(record, signal.SIGKILL)
                self._wait(record, _KILL_WAIT_S)
        _kill_by_token(record.token)

    def remove(self, replica_id: str) -> None:
        folder = self._folder(replica_id)
        record = _read_record(folder / "process.json")
        if record is not None:
            if self.alive(record):
                raise NotReady(
                    f"Replica {replica_id!r} still runs (pid {record.pid}).", hint="Stop it first."
                )
            _kill_by_token(record.token)
        _delete(folder)

    def free_port(self) -> int:
        return self._ports.pick()

    def _folder(self, replica_id: str) -> Path:
        if not replica_id or "/" in replica_id or replica_id.startswith("."):
            raise InternalError(f"{replica_id!r} cannot be the id of a replica.")
        return self._data_dir.replicas / replica_id

    def _order(self, spec: ReplicaSpec, scratch: Path) -> shim.Spec:
        """What the shim is told: a command line, an environment, and where to write."""
        isolated = spec.sandbox and spec.kind == "framework" and not spec.network
        wanted = {
            **spec.environment,
            "SAGEMAKER_BIND_TO_PORT": str(spec.port),
            "RIDGELINE_REPLICA_ID": spec.replica_id,
            "RIDGELINE_REPLICA_TOKEN": spec.token,
            "RIDGELINE_RUNTIME": spec.runtime_name,
        }
        if spec.overlays:
            path = [*map(str, spec.overlays), wanted.get("PYTHONPATH", "")]
            wanted["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
        argv = spec.argv
        cwd = "/"
        if spec.sandbox:
            tool = sandboxes.require()
            inside = sandboxes.Sandbox(
                python=spec.python,
                scratch=scratch,
                model_dir=spec.model_dir,
                read_only=(*spec.overlays, *spec.read_only),
                hidden=(self._data_dir.root, self._data_dir.cache),
                network=not isolated,
                devices=spec.devices,
            )
            argv = sandboxes.wrap(argv, inside, tool)
            environment = sandboxes.environment(wanted, python=spec.python)
        else:
            sandboxes.prepare_scratch(scratch)
            if spec.model_dir is not None:
                wanted["RIDGELINE_MODEL_DIR"] = str(spec.model_dir)
            environment = sandboxes.environment(
                wanted, python=spec.python, home=str(scratch / "home"), tmp=str(scratch / "tmp")
            )
            cwd = str(scratch / "home")
        limits = sandboxes.Limits(memory_bytes=spec.memory_bytes)
        return shim.Spec(
            replica_id=spec.replica_id,
            token=spec.token,
            port=spec.port,
            argv=argv,
            environment=environment,
            cwd=cwd,
            namespace=spec.sandbox,
            listen=isolated,
            data_bytes=limits.memory_bytes,
            processes=limits.processes,
            grace_s=spec.grace_s,
            log_file=str(log_file(self._data_dir, spec.log_group, spec.log_stream)),
            log_limit_bytes=LOG_LIMIT_BYTES,
        )

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

    def _reap(self, pid: int) -> None:
        with self._lock:
            process = self._started.get(pid)
            if process is not None and process.poll() is not None:
                del self._started[pid]


def log_file(data_dir: DataDir, group: str, stream: str) -> Path:
    """The file of one log stream; names are quoted so that a slash makes no folder."""
    return data_dir.log_groups / quote(group, safe="") / f"{quote(stream, safe='')}.jsonl"


def _read_record(path: Path) -> ProcessRecord | None:
    try:
        return ProcessRecord(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _kill_by_token(token: str) -> None:
    """Kill what a replica without a PID namespace left behind when its shim was killed."""
    wanted = f"RIDGELINE_REPLICA_TOKEN={token}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in path.read_bytes().split(b"\0"):
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
