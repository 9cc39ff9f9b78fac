"""How many more instances a variant may get: what the machine has, less what runs and what
endpoints were promised and are about to have. What waits for room has none to give up."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from ridgeline_service.placement.admission import Room
from ridgeline_service.placement.machine import in_gib
from ridgeline_service.store import endpoints, replicas
from ridgeline_service.store import jobs as job_rows
from ridgeline_service.store.states import Desired, EndpointStatus


@dataclass(frozen=True)
class Headroom:
    """``instances`` more; ``limit`` says what there is no more of."""

    instances: int
    limit: str


def headroom(connection: Connection, room: Room, memory_bytes: int) -> Headroom:
    """For instances that declare so much each. Warm pools make way, and are not counted."""
    served, served_bytes = replicas.admitted_load(connection)
    promised, promised_bytes = _promised(connection)
    worked, worked_bytes = job_rows.admitted_load(connection)
    by_count = room.instances - max(served, promised) - worked
    free = max(0, room.memory_bytes - max(served_bytes, promised_bytes) - worked_bytes)
    by_memory = free // max(1, memory_bytes)
    if by_count <= by_memory:
        limit = f"max_instances in settings.json allows {room.instances} at once"
    else:
        limit = f"one needs {in_gib(memory_bytes)}, and {in_gib(free)} are free"
    return Headroom(max(0, min(by_count, by_memory)), limit)


def _promised(connection: Connection) -> tuple[int, int]:
    """Replicas that endpoints are to have, and the bytes they declare: some have no row yet, but
    none that waits for room, maybe for ever."""
    living = {
        deployment
        for endpoint in endpoints.all_endpoints(connection)
        if endpoint.desired is Desired.RUNNING and endpoint.status is not EndpointStatus.FAILED
        for deployment in (endpoint.active_deployment, endpoint.pending_deployment)
    }
    variants = [
        variant
        for deployment in endpoints.all_deployments(connection)
        if deployment.id in living
        for variant in deployment.variants
    ]
    waiting = [r for r in replicas.living_replicas(connection) if r.reason.waits_for_room]
    count = sum(variant.count for variant in variants)
    held = sum(variant.count * variant.memory_bytes for variant in variants)
    return count - len(waiting), held - sum(replica.memory_bytes for replica in waiting)
