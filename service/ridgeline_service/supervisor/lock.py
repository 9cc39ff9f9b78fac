"""``run/lock``: held by the one supervisor of a data directory, and says which process that is."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from typing import TextIO

from ridgeline_service.paths import DataDir, is_of, place_of
from ridgeline_service.processes import ProcessId


def take_lock(data_dir: DataDir) -> TextIO | None:
    """The lock, held until it is closed; None when another process has it."""
    lock = (data_dir.run / "lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    own = ProcessId.of(os.getpid())
    assert own is not None
    lock.truncate(0)
    lock.write(json.dumps({"place": place_of(data_dir.root), **asdict(own)}))
    lock.flush()
    return lock


def last_holder(data_dir: DataDir) -> ProcessId | None:
    """Who took the lock of this very directory last, alive or not; None where nobody did."""
    try:
        raw = json.loads((data_dir.run / "lock").read_text())
        holder = ProcessId(raw["pid"], raw["start_time"])
        return holder if is_of(raw, data_dir.root) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
