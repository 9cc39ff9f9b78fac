"""The snapshot's file, as another version may have written it, or a damaged disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ridgeline_service.snapshot import (
    ApiKey,
    AsyncRoute,
    CaptureRoute,
    Credential,
    EndpointRoute,
    KeyLimits,
    ReplicaRoute,
    Snapshot,
    SnapshotReader,
    VariantRoute,
    read_snapshot,
    write_snapshot,
)

CAPTURE = CaptureRoute("s3://kept", 100, True, True, ("text/csv",), ())
VARIANT = VariantRoute("A", 1.0, (ReplicaRoute("r", "http://x", "t"),), capture=CAPTURE)
FULL = Snapshot(
    version=3,
    credentials=(Credential("id", "secret"),),
    api_keys=(ApiKey("k", "00"),),
    limits=(KeyLimits("k", "id", 5),),
    endpoints={
        "e": EndpointRoute("e", "arn", "InService", "", 0.0, (VARIANT,), AsyncRoute("s3://out"))
    },
)


def test_a_file_from_before_data_capture_is_read(tmp_path: Path) -> None:
    """The gateway starts beside a control plane that has not written its own yet."""
    path = tmp_path / "snapshot.json"
    route = EndpointRoute("e", "arn", "InService", "", 0.0, (VariantRoute("A", 1.0, ()),))
    write_snapshot(path, Snapshot(endpoints={"e": route}))
    raw = json.loads(path.read_text())
    del raw["endpoints"]["e"]["variants"][0]["capture"]
    path.write_text(json.dumps(raw))
    assert read_snapshot(path).endpoints == {"e": route}


def test_fields_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    write_snapshot(path, FULL)
    path.write_text(json.dumps(with_news(json.loads(path.read_text()))))
    assert read_snapshot(path) == FULL


def with_news(raw: Any) -> Any:
    """A field more in every object, but for the endpoints by name."""
    if isinstance(raw, list):
        return [with_news(item) for item in raw]
    if not isinstance(raw, dict):
        return raw
    newer = {
        name: {key: with_news(item) for key, item in value.items()}
        if name == "endpoints"
        else with_news(value)
        for name, value in raw.items()
    }
    return newer | {"of_tomorrow": 1}


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b"{}", b"null", b"\xff", b'{"version": 1}'])
def test_a_damaged_file_leaves_the_last_good_snapshot(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "snapshot.json"
    path.write_bytes(damaged)
    reader = SnapshotReader(path)
    assert reader.current() == Snapshot(), "a gateway starts before the control plane mends it"
    write_snapshot(path, FULL)
    assert reader.current() == FULL
    path.write_bytes(damaged)
    assert reader.current() == FULL
    newer = Snapshot(version=4)
    write_snapshot(path, newer)
    assert reader.current() == newer
