"""Shells that have the address of the TLS proxy find it there again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ridgeline.errors import Unavailable
from ridgeline_service.commands import env
from ridgeline_service.paths import DataDir


def test_the_proxy_comes_back_to_its_port_while_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: set[int] = set()
    free = iter((5000, 6000))

    def start(port: int, directory: DataDir, state: Any) -> int | None:
        return None if port in taken else port or next(free)

    monkeypatch.setattr(env, "_proxy_at", start)
    directory = DataDir.find(tmp_path)
    state: Any = None
    assert [env._start_proxy(directory, state) for _ in range(2)] == [5000, 5000]
    taken.add(5000)
    assert [env._start_proxy(directory, state) for _ in range(2)] == [6000, 6000]
    taken.update((6000, 0))
    with pytest.raises(Unavailable, match="did not start"):
        env._start_proxy(directory, state)
