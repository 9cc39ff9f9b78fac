"""Processes told apart, and what is said when that cannot be known."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ridgeline_service.processes import ProcessId


def test_a_process_is_not_taken_for_dead_because_nothing_can_be_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    this = ProcessId.of(os.getpid())
    assert this is not None

    def refuse(*_: Any, **__: Any) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(OSError, match="open files"):
        this.alive()


def test_a_process_that_is_gone_has_no_identity() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert ProcessId.of(child) is None, "a zombie is no running process"
    os.waitpid(child, 0)
    assert ProcessId.of(child) is None
