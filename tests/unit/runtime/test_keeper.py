"""What a keeper knows of processes without having started them."""

from __future__ import annotations

from pathlib import Path

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
