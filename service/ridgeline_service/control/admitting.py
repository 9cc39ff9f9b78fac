"""What runs on this machine already, endpoints and jobs together: what admission counts."""

from __future__ import annotations

from sqlalchemy import Connection

from ridgeline_service.placement.admission import Load, Room, Wait, admit
from ridgeline_service.store import jobs as job_rows
from ridgeline_service.store import journal, replicas


def place(connection: Connection, room: Room, memory_bytes: int, instances: int = 1) -> Wait | None:
    """None if so many instances that declare so much together may start now; the caller marks them
    as admitted in the same transaction. Control planes admit one after the other."""
    journal.increase(connection, "admission")
    served, served_bytes = replicas.admitted_load(connection)
    trained, trained_bytes = job_rows.admitted_load(connection)
    load = Load(served + trained, served_bytes + trained_bytes)
    return admit(memory_bytes, load, room, instances)
