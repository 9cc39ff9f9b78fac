"""The supervisor's parts, without starting a service: refusals, identities, socket hand-over."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import ridgeline_service.supervisor.supervisor as supervisor_module
from ridgeline.errors import AlreadyExists, InvalidInput, Unavailable
from ridgeline_service.paths import DataDir
from ridgeline_service.processes import ProcessId, end, find_by_command, wait_gone
from ridgeline_service.supervisor import handover
from ridgeline_service.supervisor.directory import prepare_directory
from ridgeline_service.supervisor.state import MODULES, ServiceState, read_state
from ridgeline_service.supervisor.supervisor import Supervisor


def test_a_taken_port_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        supervisor = Supervisor(DataDir(tmp_path), "127.0.0.1", port)
        with pytest.raises(InvalidInput, match=f"Port {port} on 127.0.0.1 is taken"):
            supervisor.start()
    assert find_by_command(str(tmp_path)) == []
    assert read_state(DataDir(tmp_path)) is None


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="not a directory"):
        prepare_directory(DataDir(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)])
    if mounted.returncode != 0:
        pytest.skip("this machine does not allow mounts")
    try:
        with pytest.raises(InvalidInput, match="the disk is full"):
            prepare_directory(DataDir(tmp_path / "data"))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_second_supervisor_is_told_about_the_first(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    prepare_directory(data_dir)
    own = ProcessId.of(os.getpid())
    assert own is not None
    ServiceState(own, "127.0.0.1", 4711, "http://127.0.0.1:4711", "", "").write(data_dir)
    with (data_dir.run / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AlreadyExists, match=r"already running.*127\.0\.0\.1:4711"):
            Supervisor(data_dir, "127.0.0.1", 0).start()


@pytest.mark.parametrize(
    ("said", "told"), [("print('now')", "  now"), ("pass", "It wrote nothing to ")]
)
def test_a_failed_start_shows_what_it_wrote_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    logs = DataDir(tmp_path).logs
    logs.mkdir()
    for name in MODULES:
        (logs / f"{name}.log").write_text("what an earlier start died of\n")
    program = [sys.executable, "-c", f"{said}; raise SystemExit(1)"]
    monkeypatch.setattr(Supervisor, "_command", lambda _self, _child: program)
    monkeypatch.setattr(supervisor_module, "_healthy", lambda _url: False)
    with pytest.raises(Unavailable, match="ended while starting") as failed:
        Supervisor(DataDir(tmp_path), "127.0.0.1", 0).start()
    assert told in failed.value.hint
    assert "earlier" not in failed.value.hint


def test_a_socket_survives_the_hand_over_even_under_a_long_path(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path / ("long" * 30))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        handover.serve("gateway", data_dir, listening)
        received = handover.receive("gateway", data_dir)
        assert received is not None
        address = listening.getsockname()
    with received, socket.create_connection(address), received.accept()[0]:
        pass


def test_nobody_offers_a_socket(tmp_path: Path) -> None:
    assert handover.receive("gateway", DataDir(tmp_path)) is None


def test_a_recycled_pid_is_another_process() -> None:
    own = ProcessId.of(os.getpid())
    assert own is not None
    assert own.alive()
    assert not ProcessId(own.pid, own.start_time - 1).alive()


def test_end_kills_what_ignores_sigterm() -> None:
    script = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); "
        "print('x', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = ProcessId.of(child.pid)
        assert process is not None
        end(process, grace_s=0.05)
        assert wait_gone(process, 5.0)
        assert child.wait() == -9
