"""Processes told apart, and what is said when that cannot be known."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ridgeline_service.processes import ProcessId, wait_gone


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


def test_an_end_is_seen_through_a_descriptor_of_any_number() -> None:
    """A control plane with many connections has descriptors that `select` refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2048), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
            process = ProcessId.of(child.pid)
            assert process is not None
            assert not wait_gone(process, 0.0)
            child.communicate()
            assert wait_gone(process, 10.0)
    finally:
        for handle in opened:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
