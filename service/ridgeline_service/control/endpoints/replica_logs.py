"""The log stream of a replica, as the control plane uses it: its last lines, and a word before it.

The stream's writer is the replica's shim; before that one starts, nobody else writes.
"""

from __future__ import annotations

import json

from ridgeline_service.control.names import log_group, log_stream
from ridgeline_service.paths import DataDir
from ridgeline_service.runtime.keeper import log_file
from ridgeline_service.store.records import ReplicaRecord
from ridgeline_service.telemetry.log_lines import Window
from ridgeline_service.telemetry.logs import LogStore, NoSuchLog


def last_lines(
    data_dir: DataDir, endpoint_name: str, replica: ReplicaRecord, count: int
) -> list[str]:
    """Up to ``count`` lines, oldest first; none if it has not written yet."""
    stream = log_stream(replica.variant, replica.id)
    try:
        page = LogStore(data_dir).read_backward(
            log_group(endpoint_name), stream, limit=count, window=Window()
        )
    except NoSuchLog:
        return []
    return [event.message for event in page.events]


def write_first_line(
    data_dir: DataDir, endpoint_name: str, replica: ReplicaRecord, now: int, line: str
) -> None:
    """Put a line at the head of the stream. ``now`` is in microseconds."""
    stream = log_stream(replica.variant, replica.id)
    path = log_file(data_dir, log_group(endpoint_name), stream)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"t": now // 1000, "m": line}) + "\n")
