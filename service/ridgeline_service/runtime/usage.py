"""What a process and all below it use, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ridgeline_service.runtime.shim import children

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """CPU seconds so far and resident bytes."""

    cpu_s: float
    resident_bytes: int


def usage_of(pid: int) -> Usage:
    """Of what lives at the moment: the time of processes that ended and were not waited for by one
    of these is gone."""
    cpu = resident = 0
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        waiting += children(each)
        try:
            with open(f"/proc/{each}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        cpu += sum(int(fields[index]) for index in (11, 12, 13, 14))
        resident += int(fields[21])
    return Usage(cpu / _TICKS, resident * _PAGE)
