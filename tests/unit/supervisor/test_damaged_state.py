"""A file that a power cut or a full disk damaged keeps nobody from starting and stopping."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ridgeline.errors import InvalidInput
from ridgeline_service.commands import doctor, env
from ridgeline_service.commands.down import down
from ridgeline_service.paths import DataDir
from ridgeline_service.supervisor.directory import prepare_directory
from ridgeline_service.supervisor.state import StateUnreadable, read_state
from ridgeline_service.supervisor.supervisor import Supervisor

SUPERVISE = """
import pathlib, sys, time
from ridgeline_service.paths import DataDir
from ridgeline_service.supervisor.lock import take_lock
lock = take_lock(DataDir(pathlib.Path(sys.argv[1])))
print("locked", flush=True)
time.sleep(60)
"""
SLEEP = "import time; time.sleep(60)"
DAMAGED = ["", "{", "[]", "{}", '{"supervisor": 7, "children": {}}']


@pytest.fixture
def directory(tmp_path: Path) -> DataDir:
    made = DataDir(tmp_path)
    prepare_directory(made)
    made.supervisor.write_text("{")
    return made


@pytest.fixture
def gateway(directory: DataDir) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the command line of a gateway."""
    module = ["-m", "ridgeline_service.gateway", "--data-dir", str(directory.root), "--fd", "3"]
    with subprocess.Popen([sys.executable, "-c", SLEEP, *module], start_new_session=True) as child:
        yield child
        child.kill()


@pytest.mark.parametrize("text", DAMAGED)
def test_the_damaged_file_and_the_way_out_are_named(tmp_path: Path, text: str) -> None:
    directory = DataDir(tmp_path)
    prepare_directory(directory)
    directory.supervisor.write_text(text)
    with pytest.raises(StateUnreadable, match=r"supervisor\.json is damaged") as damaged:
        read_state(directory)
    assert "ridgeline down" in damaged.value.hint
    assert "is damaged" in doctor._service(directory).detail


def test_down_ends_what_it_finds(
    directory: DataDir, gateway: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(directory.root)], stdout=subprocess.PIPE
    ) as supervisor:
        assert supervisor.stdout is not None
        supervisor.stdout.readline()
        down(directory.root, json_output=True)
        assert json.loads(capsys.readouterr().out)["stopped"]
        assert supervisor.wait(5) < 0
    assert gateway.wait(5) < 0
    assert not directory.supervisor.exists()


def test_up_goes_on_without_what_it_cannot_adopt(
    directory: DataDir, gateway: subprocess.Popen[bytes]
) -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        # So far, and no farther: the service itself is not started here.
        with pytest.raises(InvalidInput, match="is taken"):
            Supervisor(directory, "127.0.0.1", port, log=said.append).start()
    assert gateway.wait(5) < 0
    assert "supervisor.json is damaged" in said[0]


def test_a_proxy_whose_record_is_damaged_is_no_proxy(directory: DataDir) -> None:
    directory.proxy.mkdir()
    (directory.proxy / "state.json").write_text("")
    assert env._running_proxy(directory) is None
    down(directory.root, json_output=True)
    assert not (directory.proxy / "state.json").exists()
