"""Commands of ours as children of the control plane: they end with it, and what they print is read
by one who may be told to stop."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

from ridgeline_service.processes import readable

_POLL_S = 0.3


def ending_with_parent(module: str) -> tuple[str, str]:
    """Arguments of a Python that runs a module, and is sent SIGTERM when its parent has ended: a
    killed control plane leaves none behind."""
    code = (
        "import ctypes, runpy; ctypes.CDLL(None).prctl(1, 15); "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return "-c", code


def child_lines(process: subprocess.Popen[bytes], check: Callable[[], None]) -> Iterator[bytes]:
    """Its lines as they come. ``check`` is called now and then, and raises where nobody waits for
    them any more."""
    assert process.stdout is not None
    handle, rest = process.stdout.fileno(), b""
    while True:
        check()
        if not readable(handle, _POLL_S):
            continue
        part = os.read(handle, 1 << 16)
        if not part:
            if rest:
                yield rest
            return
        *whole, rest = (rest + part).split(b"\n")
        yield from whole
