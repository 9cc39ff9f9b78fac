"""The data directory before anything runs in it: made, private, and proved to hold data."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ridgeline.errors import InvalidInput
from ridgeline_service.paths import DataDir


def prepare_directory(data_dir: DataDir) -> None:
    """Make the directory and prove that it can hold data.

    Raises InvalidInput that names the directory and the cause: not writable, not a directory, full.
    """
    probe = data_dir.root / ".probe"
    try:
        data_dir.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (data_dir.run, data_dir.logs, data_dir.spool, data_dir.objects):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe.write_bytes(b"\0" * 1_048_576)
        with probe.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the disk quota is used up",
            errno.EACCES: "it is not writable for this user",
            errno.EPERM: "it is not writable for this user",
            errno.EROFS: "the file system is read-only",
            errno.ENOTDIR: "it is not a directory",
            errno.EEXIST: "it is not a directory",
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise InvalidInput(
            f"Cannot keep data in {data_dir.root}: {reason}.",
            hint=("Free some space, or choose" if full else "Choose")
            + " another directory with --data-dir.",
        ) from None
    finally:
        _unlink(probe)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the directory itself is unusable, which the caller reports
