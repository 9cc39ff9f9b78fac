"""What the machine is, how busy others keep it, and what a process tree takes of it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")


@dataclass(frozen=True, slots=True)
class Machine:
    cpu: str
    features: tuple[str, ...]
    cores: int
    memory_gib: float


def describe_machine() -> Machine:
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return Machine(
        cpu=fields.get("model name", os.uname().machine),
        features=tuple(feature for feature in _FEATURES if feature in flags),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
    )


def wait_for_quiet(wait_s: float, limit_cores: float = 0.3) -> bool:
    """Wait until one second passes in which the machine was nearly idle; False if none came.

    To be called while nothing of ours runs.
    """
    deadline = time.monotonic() + wait_s
    while True:
        before = busy_seconds()
        time.sleep(1)
        if busy_seconds() - before < limit_cores:
            return True
        if time.monotonic() > deadline:
            return False


class CpuShare:
    """Cores that a server (with its children) and everybody else used since this was made.

    This process counts as neither: it is the client.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._started = time.monotonic()
        self._busy, self._server, self._client = self._read()

    def cores(self) -> tuple[float, float]:
        """(server, others)"""
        busy, server, client = self._read()
        elapsed = time.monotonic() - self._started
        used = (server - self._server) / elapsed
        others = (busy - self._busy) / elapsed - used - (client - self._client) / elapsed
        return round(used, 2), round(max(0.0, others), 2)

    def _read(self) -> tuple[float, float, float]:
        client = os.times()
        return busy_seconds(), tree_cpu_seconds(self._pid), client.user + client.system


def busy_seconds() -> float:
    """Core seconds that the whole machine has spent on anything."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, steal = ticks[:8]
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


def tree_cpu_seconds(pid: int) -> float:
    total = 0.0
    for process in _tree(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def tree_peak_mib(pid: int) -> int:
    """Sum of the peak resident sizes of the process and its children, MiB."""
    kib = 0
    for process in _tree(pid):
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            continue
        kib += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return kib // 1024


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
