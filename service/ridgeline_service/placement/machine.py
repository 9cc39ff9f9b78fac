"""What this machine has: memory and cores, as the processes of this service may use them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ridgeline_service.placement.gpus import usable_gpus

GIB = 1 << 30

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Machine:
    """``memory_bytes`` is what replicas may declare together; the service keeps the rest. ``gpus``
    counts those that a replica can use."""

    memory_bytes: int
    cores: int
    gpus: int = 0


def this_machine() -> Machine:
    """The smaller of the machine's memory and the control group's, less a reserve of a tenth."""
    total = _physical_memory()
    limit = _cgroup_limit()
    usable = min(total, limit) if limit is not None else total
    return Machine(
        memory_bytes=usable - max(usable // 10, GIB // 2),
        cores=len(os.sched_getaffinity(0)),
        gpus=usable_gpus(),
    )


def in_gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _physical_memory() -> int:
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup_limit() -> int | None:
    try:
        text = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        return None  # no control group of version 2, hence no limit by one
    return int(text) if text.isdigit() else None
