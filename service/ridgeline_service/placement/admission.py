"""Whether more instances may start now, and if not, what they wait for. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ridgeline_service.placement.machine import in_gib

Shortage = Literal["instances", "memory"]


@dataclass(frozen=True)
class Load:
    """What runs or starts: how many instances, and the bytes they declare together."""

    instances: int
    memory_bytes: int


@dataclass(frozen=True)
class Room:
    """What this service may run at once."""

    instances: int
    memory_bytes: int


@dataclass(frozen=True)
class Wait:
    """Why not now, in words that a user reads."""

    shortage: Shortage
    message: str


def admit(memory_bytes: int, load: Load, room: Room, instances: int = 1) -> Wait | None:
    """None if ``instances`` that declare ``memory_bytes`` together may start beside ``load``."""
    if load.instances + instances > room.instances:
        needed = f", and {instances} are needed" if instances > 1 else ""
        return Wait(
            "instances",
            f"Waiting for a running instance to end: {load.instances} of at most "
            f"{room.instances} run{needed}.",
        )
    free = room.memory_bytes - load.memory_bytes
    if memory_bytes > free:
        return Wait(
            "memory",
            f"Waiting for memory: needs {in_gib(memory_bytes)}, and {in_gib(max(0, free))} of "
            f"{in_gib(room.memory_bytes)} are free.",
        )
    return None
