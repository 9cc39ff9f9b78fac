"""The logs of the service's own processes, kept to a bounded size while they are written."""

from __future__ import annotations

import os
import shutil

from ridgeline_service.paths import DataDir

LIMIT_BYTES = 16 << 20


def bound_logs(data_dir: DataDir) -> None:
    """Cut every log that has grown beyond the limit, with what it held in ``NAME.log.1``.

    Its writer keeps the file open and appends, so the file is emptied and not replaced; a line
    that is written in this very moment may be lost.
    """
    for path in data_dir.logs.glob("*.log"):
        if path.stat().st_size <= LIMIT_BYTES:
            continue
        older = path.with_name(f"{path.name}.1")
        try:
            shutil.copyfile(path, older)
        except OSError:
            older.unlink(missing_ok=True)  # the disk is full, most likely of this very file
        os.truncate(path, 0)
