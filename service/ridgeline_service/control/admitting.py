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
        wait = admit(memory_bytes, current_load(connection), room, instances)
        if wait is None or not warm_pools.end_a_pool(connection):
            return wait


def current_load(connection: Connection, *, with_pools: bool = True) -> Load:
    """What runs or starts now."""
    served = served_load(connection)
    worked, worked_bytes = job_rows.admitted_load(connection)
    kept, kept_bytes = warm_pools.available_load(connection) if with_pools else (0, 0)
    return Load(served.instances + worked + kept, served.memory_bytes + worked_bytes + kept_bytes)


def served_load(connection: Connection) -> Load:
    """What endpoints run or start now: unlike a job, none of it ends by itself."""
    return Load(*replicas.admitted_load(connection))
