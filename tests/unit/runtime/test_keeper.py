"""What a keeper knows of processes without having started them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

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
        argv=(sys.executable, "-c", "import time; time.sleep(60)"),
        environment={"TOKEN": "token-of-a-copied-process"},
        cwd="/",
        namespace=False,
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
