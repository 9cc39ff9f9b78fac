"""Folders of models that are filled once, whoever asks and whoever is killed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from staging_bench import never

from ridgeline_service.control.staging.cache import ModelCache


class TestCache:
    def test_many_at_once_fill_it_once(self, tmp_path):
        cache, fills, found = ModelCache(tmp_path), [], []
        started = threading.Barrier(4)

        def fill(into: Path) -> None:
            fills.append(into)
            (into / "w").write_text("w")

        def get() -> None:
            started.wait()
            found.append(cache.get("name", fill, never))

        threads = [threading.Thread(target=get) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(fills) == 1
        assert set(found) == {tmp_path / "name"}

    def test_what_a_killed_filler_left_is_removed(self, tmp_path):
        (tmp_path / ".name.filling-abc").mkdir()
        ModelCache(tmp_path).get("name", lambda into: None, never)
        assert not list(tmp_path.glob(".name.filling-*"))

    def test_a_fill_that_fails_can_be_tried_again(self, tmp_path):
        def broken(_into: Path) -> None:
            raise OSError("no room")

        cache = ModelCache(tmp_path)
        with pytest.raises(OSError, match="no room"):
            cache.get("name", broken, never)
        assert not cache.has("name")
        assert cache.get("name", lambda into: None, never).is_dir()
