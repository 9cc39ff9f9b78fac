"""What runs on this machine already: endpoints, jobs and warm pools, as admission counts them."""

from __future__ import annotations

from sqlalchemy import Connection

from ridgeline_service.placement.admission import Load, Room, Wait, admit
from ridgeline_service.store import jobs as job_rows
from ridgeline_service.store import journal, replicas, warm_pools


def place(connection: Connection, room: Room, memory_bytes: int, instances: int = 1) -> Wait | None:
    """None if so many instances that declare so much together may start now; the caller marks them
    as admitted in the same transaction. Control planes admit one after the other. Warm pools make
    way, the one that has waited longest first."""
    journal.increase(connection, "admission")
    while True:
        wait = admit(memory_bytes, _load(connection), room, instances)
        if wait is None or not warm_pools.end_a_pool(connection):
            return wait


def _load(connection: Connection) -> Load:
    served, served_bytes = replicas.admitted_load(connection)
    worked, worked_bytes = job_rows.admitted_load(connection)
    kept, kept_bytes = warm_pools.available_load(connection)
    return Load(served + worked + kept, served_bytes + worked_bytes + kept_bytes)
