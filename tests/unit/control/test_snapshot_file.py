"""The snapshot's file, as another version may have written it."""

from __future__ import annotations

import json
from pathlib import Path

from ridgeline_service.snapshot import EndpointRoute, Snapshot, read_snapshot, write_snapshot


def test_a_file_from_before_data_capture_is_read(tmp_path: Path) -> None:
    """The gateway starts beside a control plane that has not written its own yet."""
    path = tmp_path / "snapshot.json"
    route = EndpointRoute("e", "arn", "InService", "", 0.0, ())
    write_snapshot(path, Snapshot(endpoints={"e": route}))
    raw = json.loads(path.read_text())
    del raw["endpoints"]["e"]["capture"]
    path.write_text(json.dumps(raw))
    assert read_snapshot(path).endpoints == {"e": route}
