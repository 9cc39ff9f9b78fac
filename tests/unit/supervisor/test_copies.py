"""A copy of the directory of a service that runs is another service, which does not run yet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ridgeline.errors import NotRunning
from ridgeline.session import Session
from ridgeline_service.commands import env
from ridgeline_service.commands.down import down
from ridgeline_service.paths import DataDir, place_of
from ridgeline_service.processes import ProcessId
from ridgeline_service.security.keys import ensure_root_key
from ridgeline_service.supervisor.directory import prepare_directory
from ridgeline_service.supervisor.lock import last_holder, take_lock
from ridgeline_service.supervisor.state import MODULES, ServiceState, read_state

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def process() -> Iterator[ProcessId]:
    with subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True) as child:
        found = ProcessId.of(child.pid)
        assert found is not None
        yield found
        child.kill()


@pytest.fixture
def original(tmp_path: Path, process: ProcessId) -> DataDir:
    """The directory of a service whose processes all are the same one."""
    directory = DataDir(tmp_path / "original")
    prepare_directory(directory)
    ensure_root_key(directory)
    url = "http://127.0.0.1:1"
    children = dict.fromkeys(MODULES, process)
    ServiceState(process, "127.0.0.1", 1, url, url, url, children).write(directory)
    directory.proxy.mkdir()
    record = {"place": place_of(directory.root), **vars(process), "port": 2}
    (directory.proxy / "state.json").write_text(json.dumps(record))
    return directory


@pytest.fixture
def copy(original: DataDir, tmp_path: Path) -> DataDir:
    shutil.copytree(original.root, tmp_path / "copy")
    return DataDir(tmp_path / "copy")


def test_down_on_a_copy_stops_nothing(
    original: DataDir, copy: DataDir, process: ProcessId, capsys: pytest.CaptureFixture[str]
) -> None:
    down(copy.root)
    assert process.alive()
    assert "Nothing was running" in capsys.readouterr().out
    assert env._running_proxy(original) == 2


def test_a_copy_does_not_run(copy: DataDir) -> None:
    assert read_state(copy) is None
    assert env._running_proxy(copy) is None
    with pytest.raises(NotRunning, match=str(copy.root)):
        Session(data_dir=copy.root)


def test_a_copy_outlives_its_original_s_name(
    original: DataDir, copy: DataDir, tmp_path: Path, process: ProcessId
) -> None:
    original.root.rename(tmp_path / "moved")
    down(copy.root)
    assert process.alive()
    with pytest.raises(NotRunning):
        Session(data_dir=copy.root)


def test_a_link_that_leads_to_a_copy_now_is_the_copy(
    tmp_path: Path, original: DataDir, process: ProcessId
) -> None:
    link = tmp_path / "link"
    link.symlink_to(original.root)
    assert DataDir.find(link) == original
    state = read_state(DataDir.find(link))
    assert state is not None
    state.write(DataDir(link))
    shutil.copytree(original.root, tmp_path / "copy")
    link.unlink()
    link.symlink_to(tmp_path / "copy")
    down(link)
    assert process.alive()
    assert read_state(original) == state


def test_a_directory_is_known_under_its_new_name_when_another_has_the_old(
    tmp_path: Path, original: DataDir, process: ProcessId, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = original.root.rename(tmp_path / "moved")
    prepare_directory(original)
    assert read_state(original) is None
    assert Session(data_dir=moved)
    down(original.root)
    assert "Nothing was running" in capsys.readouterr().out
    assert process.alive()
    down(moved)
    assert "Stopped" in capsys.readouterr().out
    assert not process.alive()


def test_records_that_do_not_say_where_they_were_written_are_of_their_directory(
    original: DataDir, process: ProcessId
) -> None:
    raw = json.loads(original.supervisor.read_text())
    del raw["place"]
    original.supervisor.write_text(json.dumps({"data_dir": "/elsewhere", **raw}))
    state = read_state(original)
    assert state is not None
    assert state.supervisor == process


def test_who_locked_the_original_did_not_lock_the_copy(tmp_path: Path, original: DataDir) -> None:
    with take_lock(original) as lock:  # type: ignore[union-attr]
        assert lock is not None
        shutil.copytree(original.root, tmp_path / "copy")
    holder = last_holder(original)
    assert holder is not None
    assert holder.pid == os.getpid()
    assert last_holder(DataDir(tmp_path / "copy")) is None


def test_a_link_to_a_directory_is_that_directory(tmp_path: Path, original: DataDir) -> None:
    (tmp_path / "link").symlink_to(original.root)
    assert read_state(DataDir(tmp_path / "link")) == read_state(original)
    assert env._running_proxy(DataDir(tmp_path / "link")) == 2
    assert Session(data_dir=tmp_path / "link")


def test_a_directory_that_was_moved_is_still_the_service_s(
    tmp_path: Path, original: DataDir, process: ProcessId
) -> None:
    original.root.rename(tmp_path / "moved")
    state = read_state(DataDir(tmp_path / "moved"))
    assert state is not None
    assert state.supervisor == process
