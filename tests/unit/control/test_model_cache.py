"""Folders of models that are filled once, whoever asks and whoever is killed."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
from staging_bench import never

from ridgeline_service.control.staging.base import StagingFailed
from ridgeline_service.control.staging.cache import ModelCache
from ridgeline_service.placement import disk
from ridgeline_service.placement.disk import room_kept
from ridgeline_service.store.states import Reason


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


_PIECE = 1 << 16


class Crowd:
    """Four models of three pieces at the same moment, and a disk that takes four pieces. The first
    time each waits for the others after its first piece, and again before it gives up."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = ModelCache(root)
        self.reasons: list[Reason] = []
        self._meeting = threading.Barrier(4, timeout=30)
        real = shutil.disk_usage(root)

        def usage(_place: Path) -> object:
            files = [name for _, _, names in os.walk(root) for name in names]
            written = sum(name.startswith("piece") for name in files)
            return real._replace(free=disk.RESERVE_BYTES + (4 - written) * _PIECE)

        monkeypatch.setattr(disk.shutil, "disk_usage", usage)

    def come(self) -> None:
        threads = [threading.Thread(target=self._get, args=(f"m{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _get(self, name: str) -> None:
        crowded = iter((True, False))
        try:
            self.cache.get(name, lambda into: self._fill(into, next(crowded)), never)
        except StagingFailed as error:
            self.reasons.append(error.reason)

    def _fill(self, into: Path, crowded: bool) -> None:
        took = room_kept(into, into.name)
        took(_PIECE)
        (into / "piece-1").touch()
        if crowded:
            self._meeting.wait()
        try:
            took(2 * _PIECE)
        finally:
            if crowded:
                self._meeting.wait()
        (into / "piece-2").touch()
        (into / "piece-3").touch()


def test_models_that_took_each_others_room_are_tried_one_after_the_other(tmp_path, monkeypatch):
    crowd = Crowd(tmp_path, monkeypatch)
    crowd.come()
    assert sum(crowd.cache.has(f"m{n}") for n in range(4)) == 1
    assert crowd.reasons == [Reason.DISK_FULL] * 3
    assert not list(tmp_path.glob(".*filling-*"))
