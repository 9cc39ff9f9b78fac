"""What a control plane clears away as time passes."""

from __future__ import annotations

import os
from typing import Any

from ridgeline_service.telemetry.logs import LogStore


def test_logs_go_when_their_group_keeps_them_no_longer(world: Any) -> None:
    group = world.data_dir.log_groups / "g"
    group.mkdir(parents=True)
    path = group / "s.jsonl"
    path.write_text('{"t": 1, "m": "x"}\n')
    os.utime(path, (world.now, world.now))
    LogStore(world.data_dir).keep_for("g", 1)
    for _ in range(3):
        world.tick(61)
    assert path.exists()
    world.tick(24 * 3600)
    assert not path.exists()
