"""The process tree of a service: gateway, control plane and object store, kept alive.

The supervisor opens the listening sockets and passes them on, so connections made while a child
restarts wait instead of failing. Children live in sessions of their own and do not need it: when
it is killed they go on, and the next supervisor takes their sockets over and adopts them.
It knows nothing of what the children do.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TextIO

from ridgeline.errors import AlreadyExists, InvalidInput, Unavailable
from ridgeline_service.paths import DataDir
from ridgeline_service.processes import ProcessId, end, readable
from ridgeline_service.security.keys import ensure_internal_key, ensure_root_key
from ridgeline_service.supervisor import handover
from ridgeline_service.supervisor.directory import prepare_directory
from ridgeline_service.supervisor.listening import connectable, listen
from ridgeline_service.supervisor.lock import take_lock
from ridgeline_service.supervisor.log_files import bound_logs
from ridgeline_service.supervisor.shutdown import stop_everything
from ridgeline_service.supervisor.state import (
    MODULES,
    ServiceState,
    StateUnreadable,
    find_children,
    read_state,
)

_READY_TIMEOUT_S = 60.0
_PORT_ATTEMPTS = 20
_PORT_PAUSE_S = 0.1
_CALM_S = 10.0
_MAX_DELAY_S = 5.0
_LOGS_EVERY_S = 60.0


@dataclass
class Child:
    """One child: its socket for life, and the process that serves it now, with where its log has
    what that process wrote."""

    name: str
    listening: socket.socket
    process: ProcessId | None = None
    pidfd: int = -1
    failures: int = 0
    started_at: float = 0.0
    restart_at: float = field(default=0.0)
    log_from: int = 0

    @property
    def url(self) -> str:
        host, port = self.listening.getsockname()[:2]
        return f"http://{connectable(host)}:{port}"


class Supervisor:
    """Owns one data directory (by a file lock) for as long as it lives."""

    def __init__(
        self,
        data_dir: DataDir,
        host: str,
        port: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        log: Callable[[str], None] = print,
    ) -> None:
        self._data_dir = data_dir
        self._host = host
        self._port = port
        self._clock = clock
        self._log = log
        self._children: dict[str, Child] = {}
        self._lock: TextIO | None = None
        self._stop_requested = False
        self._logs_at = 0.0
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def start(self) -> ServiceState:
        """Bring everything up and wait until it is healthy.

        Raises AlreadyExists when a supervisor runs on this directory, InvalidInput for a port or
        directory that cannot be used, Unavailable when a child does not come up.
        """
        prepare_directory(self._data_dir)
        self._lock = _lock(self._data_dir)
        ensure_root_key(self._data_dir)
        ensure_internal_key(self._data_dir)
        previous = self._previous()
        self._refuse_other_port(previous)
        spawned: list[Child] = []
        try:
            for name in MODULES:
                self._children[name] = self._adopt(name, previous) or Child(
                    name, self._bind(name, previous)
                )
            self._end_misled(previous)
            for child in self._children.values():
                if child.process is None:
                    self._spawn(child)
                    spawned.append(child)
            self._write_state()
            self._wait_healthy()
        except BaseException:
            self._abandon(spawned)
            raise
        return self.state()

    def state(self) -> ServiceState:
        own = ProcessId.of(os.getpid())
        assert own is not None
        gateway = self._children["gateway"]
        host, port = gateway.listening.getsockname()[:2]
        return ServiceState(
            supervisor=own,
            host=host,
            port=port,
            url=gateway.url,
            control_url=self._children["control"].url,
            store_url=self._children["objects"].url,
            children={
                name: child.process
                for name, child in self._children.items()
                if child.process is not None
            },
        )

    def run(self) -> None:
        """Restart what dies, until SIGTERM or SIGINT; then stop everything."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            while not self._stop_requested:
                self._step()
        finally:
            self.stop()

    def stop(self) -> None:
        """End the children and every replica; leave the data."""
        self._follow()
        for child in self._children.values():
            if child.pidfd >= 0:
                os.close(child.pidfd)
                child.pidfd = -1
        stop_everything(
            self._data_dir,
            {name: c.process for name, c in self._children.items() if c.process is not None},
        )
        for child in self._children.values():
            child.listening.close()
        self._release()

    def _abandon(self, spawned: list[Child]) -> None:
        """Undo a start that failed: end what it started, leave what it found running."""
        for child in spawned:
            if child.process is not None:
                end(child.process, 2.0)
        for child in self._children.values():
            child.listening.close()
        if len(spawned) == len(self._children):
            self._data_dir.supervisor.unlink(missing_ok=True)
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _follow(self) -> None:
        """The directory may have been moved, and another may lie where it was."""
        if self._lock is not None:
            lock = Path(os.readlink(f"/proc/self/fd/{self._lock.fileno()}"))
            self._data_dir = DataDir(lock.parent.parent)

    def _step(self) -> None:
        watched = {c.pidfd: c for c in self._children.values() if c.pidfd >= 0}
        pending = [c.restart_at for c in self._children.values() if c.process is None]
        wait = max(0.0, min([*pending, self._logs_at]) - self._clock())
        readable, _, _ = select.select([*watched, self._wake_read], [], [], wait)
        if self._wake_read in readable:
            os.read(self._wake_read, 512)
        self._follow()
        for handle in readable:
            if handle in watched:
                self._on_death(watched[handle])
        for child in self._children.values():
            if child.process is None and child.restart_at <= self._clock():
                self._spawn(child)
                self._write_state()
        if self._logs_at <= self._clock():
            self._logs_at = self._clock() + _LOGS_EVERY_S
            self._bound_logs()

    def _bound_logs(self) -> None:
        try:
            bound_logs(self._data_dir)
        except OSError as error:  # it stays as it is until the next look
            self._log(f"a log could not be cut: {error}")

    def _on_death(self, child: Child) -> None:
        os.close(child.pidfd)
        child.pidfd = -1
        process, child.process = child.process, None
        if process is not None:
            _reap(process.pid)
        now = self._clock()
        child.failures = 0 if now - child.started_at > _CALM_S else child.failures + 1
        delay = 0.0 if child.failures == 0 else min(_MAX_DELAY_S, 0.25 * 2**child.failures)
        child.restart_at = now + delay
        self._log(f"{child.name} died; starting it again" + (f" in {delay:g} s" if delay else ""))

    def _spawn(self, child: Child) -> None:
        log_path = self._data_dir.logs / f"{child.name}.log"
        with log_path.open("ab") as log:
            child.log_from = log.tell()
            started = subprocess.Popen(
                self._command(child),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[child.listening.fileno()],
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        started.returncode = 0  # reaped in _on_death; keeps Popen from warning or waiting itself
        self._watch(child, ProcessId.of(started.pid) or ProcessId(started.pid, 0))

    def _command(self, child: Child) -> list[str]:
        command = [sys.executable, "-m", MODULES[child.name]]
        command += ["--data-dir", str(self._data_dir.root), "--fd", str(child.listening.fileno())]
        if child.name == "gateway":
            command += ["--control-url", self._children["control"].url]
            command += ["--store-url", self._children["objects"].url]
        if child.name == "control":
            command += ["--store-url", self._children["objects"].url]
            command += ["--public-url", self._children["gateway"].url]
        return command

    def _watch(self, child: Child, process: ProcessId) -> None:
        child.process = process
        child.started_at = self._clock()
        try:
            child.pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            child.pidfd = -1
            child.process = None

    def _adopt(self, name: str, previous: ServiceState | None) -> Child | None:
        process = previous.children.get(name) if previous else None
        if previous is None or process is None or not process.alive():
            return None
        listening = handover.receive(name, self._data_dir)
        if listening is None:
            end(process, 2.0)  # it holds the port but does not answer: replaced
            return None
        child = Child(name, listening)
        self._watch(child, process)
        self._log(f"{name} still runs (pid {process.pid}); adopted")
        return child

    def _end_misled(self, previous: ServiceState | None) -> None:
        """Children that live on know the others by their addresses. Where one could not be had
        again, because somebody else has that port now, they start anew on their own sockets."""
        if previous is None:
            return
        before = {"control": previous.control_url, "objects": previous.store_url}
        moved = {name for name, url in before.items() if self._children[name].url != url}
        for name, known in (("gateway", {"control", "objects"}), ("control", {"objects"})):
            child = self._children[name]
            if child.process is not None and moved & known:
                self._log(f"{name} starts anew: {', '.join(sorted(moved & known))} moved")
                end(child.process, 2.0)
                os.close(child.pidfd)
                child.process, child.pidfd = None, -1

    def _previous(self) -> ServiceState | None:
        """What ran here before. What cannot be adopted, for want of its addresses, is ended."""
        try:
            return read_state(self._data_dir)
        except StateUnreadable as error:
            self._log(f"{error.message} What still runs of the service starts anew.")
        for process in find_children(self._data_dir).values():
            end(process, 2.0)
        return None

    def _refuse_other_port(self, previous: ServiceState | None) -> None:
        gateway = previous.children.get("gateway") if previous else None
        if previous and gateway and gateway.alive() and self._port not in (0, previous.port):
            self._release()
            raise AlreadyExists(
                f"Ridgeline already answers on port {previous.port} for {self._data_dir.root}.",
                hint=f"Use --port {previous.port} to take it over, or run `ridgeline down` first.",
            )

    def _bind(self, name: str, previous: ServiceState | None) -> socket.socket:
        if name == "gateway":
            return listen(self._host, self._port)
        # Survivors of an earlier supervisor know the others by their old ports: keep them.
        urls = {"control": previous.control_url, "objects": previous.store_url} if previous else {}
        port = int(urls[name].rpartition(":")[2]) if name in urls else 0
        for _ in range(_PORT_ATTEMPTS):
            try:
                return listen("127.0.0.1", port)
            except InvalidInput:
                # A child that was killed just now may hold it until its last thread is gone.
                time.sleep(_PORT_PAUSE_S)
        return listen("127.0.0.1", 0)

    def _wait_healthy(self) -> None:
        deadline = self._clock() + _READY_TIMEOUT_S
        for child in self._children.values():
            while not _healthy(child.url):
                if child.pidfd >= 0 and readable(child.pidfd, 0.02):
                    raise Unavailable(
                        f"The {child.name} process ended while starting.",
                        hint=self._log_tail(child),
                    )
                if self._clock() > deadline:
                    raise Unavailable(
                        f"The {child.name} process did not become healthy in "
                        f"{_READY_TIMEOUT_S:.0f} s.",
                        hint=self._log_tail(child),
                    )

    def _log_tail(self, child: Child, lines: int = 12) -> str:
        """Of this start alone: what an earlier one said would mislead."""
        path = self._data_dir.logs / f"{child.name}.log"
        try:
            written = path.read_bytes()[child.log_from :].decode(errors="replace")
        except OSError:
            written = ""
        tail = written.splitlines()[-lines:]
        if not tail:
            return f"It wrote nothing to {path}."
        return f"Last lines of {path}:\n" + "\n".join(f"  {line}" for line in tail)

    def _write_state(self) -> None:
        self.state().write(self._data_dir)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_requested = True
        os.write(self._wake_write, b"\0")


def _lock(data_dir: DataDir) -> TextIO:
    lock = take_lock(data_dir)
    if lock is None:
        raise AlreadyExists(
            f"Ridgeline is already running on {data_dir.root}{_whereabouts(data_dir)}.",
            hint="Stop it with `ridgeline down`, or use another --data-dir.",
        )
    return lock


def _whereabouts(data_dir: DataDir) -> str:
    try:
        state = read_state(data_dir)
    except StateUnreadable:
        return ""
    return f" at {state.url} (pid {state.supervisor.pid})" if state else ""


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2.0) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # adopted from an earlier supervisor: init reaps it
