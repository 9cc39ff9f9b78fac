"""What a keeper knows of processes without having started them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from ridgeline.errors import NotReady
from ridgeline_service.processes import ProcessId
from ridgeline_service.runtime import shim
from ridgeline_service.runtime.keeper import ProcessKeeper


def test_what_was_removed_by_half_is_still_known_and_can_be_removed(tmp_path: Path) -> None:
    keeper = ProcessKeeper(tmp_path / "jobs")
    assert keeper.ids() == []
    keeper.make_scratch("a-0-algo-1")  # a folder without its spec.json
    (tmp_path / "jobs" / "a-0-algo-1" / "scratch" / "rest").write_text("of a job")
    assert keeper.ids() == ["a-0-algo-1"]
    keeper.remove("a-0-algo-1")
    assert keeper.ids() == []
    assert list((tmp_path / "jobs").iterdir()) == []


def order(folder: Path) -> shim.Spec:
    """A process that sleeps."""
    return shim.Spec(
        id="a",
        token="token-of-a-copied-process",
        port=0,
        command=shim.Command((sys.executable, "-c", "import time; time.sleep(60)")),
        environment={"TOKEN": "token-of-a-copied-process"},
        cwd="/",
        listen=False,
        data_bytes=None,
        processes=None,
        grace_s=1.0,
        log_file=str(folder / "log.jsonl"),
        log_limit_bytes=1 << 20,
    )


def test_a_copy_of_a_root_has_none_of_its_processes(tmp_path: Path) -> None:
    """Nor has who finds their ids, pids and tokens in a copied row."""
    keeper = ProcessKeeper(tmp_path / "jobs")
    keeper.make_scratch("a")
    record = keeper.start(order(tmp_path))
    try:
        shutil.copytree(tmp_path / "jobs", tmp_path / "copy")
        (tmp_path / "link").symlink_to(tmp_path / "jobs")
        copy = ProcessKeeper(tmp_path / "copy")
        assert copy.records() == []
        assert not copy.alive(record)
        copy.stop(record, 0)
        copy.remove("a")
        assert copy.ids() == []
        copy.stop(record, 0)
        assert keeper.records() == [record]
        assert ProcessKeeper(tmp_path / "link").records() == [record]
    finally:
        keeper.stop(record, 0)
    assert keeper.records() == []


def test_a_process_without_a_record_lives_and_can_be_stopped(tmp_path: Path) -> None:
    keeper = ProcessKeeper(tmp_path / "jobs")
    keeper.make_scratch("a")
    record = keeper.start(order(tmp_path))
    try:
        (tmp_path / "jobs" / "a" / "process.json").unlink()
        shutil.copytree(tmp_path / "jobs", tmp_path / "copy")
        assert keeper.alive(record)
        assert keeper.records() == [record]
        with pytest.raises(NotReady, match="still runs"):
            keeper.remove("a")
        copy = ProcessKeeper(tmp_path / "copy")
        assert not copy.alive(record)
        assert copy.records() == []
    finally:
        keeper.stop(record, 0)
    assert not ProcessId(record.pid, record.start_time).alive()


def test_a_root_that_was_moved_keeps_its_processes(tmp_path: Path) -> None:
    """Also when a copy of it lies where it was."""
    keeper = ProcessKeeper(tmp_path / "jobs")
    keeper.make_scratch("a")
    record = keeper.start(order(tmp_path))
    try:
        shutil.copytree(tmp_path / "jobs", tmp_path / "copy")
        moved = ProcessKeeper((tmp_path / "jobs").rename(tmp_path / "moved"))
        (tmp_path / "copy").rename(tmp_path / "jobs")
        assert keeper.records() == []
        assert moved.records() == [record]
    finally:
        ProcessKeeper(tmp_path / "moved").stop(record, 0)
    assert not ProcessId(record.pid, record.start_time).alive()
