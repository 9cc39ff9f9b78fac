"""Processes that this service started, told apart from strangers that were given the same pid."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessId:
    """A pid with its start time (clock ticks since boot): together they never repeat."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The identity of a running process; None when there is none, or only a zombie. Raises
        OSError when that cannot be known: a process must not be taken for dead because this one
        has no file descriptor left."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self


def wait_gone(process: ProcessId, timeout_s: float) -> bool:
    """Wait until ``process`` has ended; False when it has not after ``timeout_s`` seconds."""
    if not process.alive():
        return True
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        readable(handle, timeout_s)
    finally:
        os.close(handle)
    return not process.alive()


def readable(handle: int, timeout_s: float) -> bool:
    """Wait until a file descriptor can be read, of a pidfd: until its process has ended; False when
    it cannot after ``timeout_s`` seconds. (`select.select` knows no descriptor above 1023.)"""
    look = select.poll()
    look.register(handle, select.POLLIN)
    return bool(look.poll(timeout_s * 1000))


def end(process: ProcessId, grace_s: float) -> None:
    """SIGTERM, then SIGKILL to its whole process group once ``grace_s`` seconds have passed."""
    if not process.alive():
        return
    _signal(process, signal.SIGTERM, group=False)
    if not wait_gone(process, grace_s):
        _signal(process, signal.SIGKILL, group=True)
        wait_gone(process, 5.0)


def _signal(process: ProcessId, number: signal.Signals, *, group: bool) -> None:
    try:
        if group and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)
    except ProcessLookupError:
        return


def find_by_command(needle: str) -> list[ProcessId]:
    """Processes of this user that have ``needle`` in their command line, oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # ended meanwhile, or another user's
        process = ProcessId.of(int(entry.name))
        if needle in command and process is not None:
            found.append(process)
    return sorted(found, key=lambda process: process.start_time)
