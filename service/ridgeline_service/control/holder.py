"""Who holds a claim: a name of this very process, by which others see that it died."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ridgeline_service.processes import ProcessId

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def holder_name() -> str:
    """``<boot>:<pid>:<start time>:<random>``; the random part tells two planes of one process."""
    pid = os.getpid()
    return f"{boot_id()}:{pid}:{_start_time(pid)}:{secrets.token_hex(4)}"


def is_dead(holder: str) -> bool:
    """Whether that process has ended for certain. One of another machine never is."""
    parts = holder.split(":")
    if len(parts) != 4 or parts[0] != boot_id() or not parts[1].isdigit():
        return False
    return str(_start_time(int(parts[1]))) != parts[2]


def boot_id() -> str:
    """Of this boot of this machine."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


def _start_time(pid: int) -> int | None:
    process = ProcessId.of(pid)
    return None if process is None else process.start_time
