"""The last lines a replica wrote, for failure reasons. Log streams are JSON lines on disk."""

from __future__ import annotations

import json
from urllib.parse import quote

from ridgeline_service.paths import DataDir
from ridgeline_service.store.records import ReplicaRecord

_TAIL_BYTES = 32 * 1024


def log_group(endpoint_name: str) -> str:
    return f"/aws/sagemaker/Endpoints/{endpoint_name}"


def log_stream(replica: ReplicaRecord) -> str:
    return f"{replica.variant}/{replica.id}"


def last_lines(data_dir: DataDir, endpoint_name: str, stream: str, count: int) -> list[str]:
    """Up to ``count`` lines, oldest first; none if the stream does not exist yet."""
    folder = data_dir.log_groups / quote(log_group(endpoint_name), safe="")
    path = folder / f"{quote(stream, safe='')}.jsonl"
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            raw = file.read()
    except OSError:
        return []
    # The first line may have been cut by the seek, the last may be half written: both are no JSON.
    lines = [line for line in map(_message, raw.splitlines()) if line is not None]
    return lines[-count:]


def _message(raw: bytes) -> str | None:
    try:
        return str(json.loads(raw)["m"])
    except (ValueError, KeyError, TypeError):
        return None
