"""The last lines a replica wrote, for failure reasons and progress."""

from __future__ import annotations

from ridgeline_service.control.names import log_group, log_stream
from ridgeline_service.paths import DataDir
from ridgeline_service.store.records import ReplicaRecord
from ridgeline_service.telemetry.logs import LogStore, NoSuchLog, Window


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
