"""Whether one more replica may start now, and if not, what it waits for. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ridgeline_service.placement.machine import in_gib

Shortage = Literal["instances", "memory"]


@dataclass(frozen=True)
class Load:
    """What runs or starts: how many replicas, and the bytes they declare together."""

    replicas: int
    memory_bytes: int


@dataclass(frozen=True)
class Room:
    """What this service may run at once."""

    replicas: int
    memory_bytes: int


@dataclass(frozen=True)
class Wait:
    """Why not now, in words that a user reads."""

    shortage: Shortage
    message: str


def admit(memory_bytes: int, load: Load, room: Room) -> Wait | None:
    """None if a replica that declares ``memory_bytes`` may start beside ``load``."""
    if load.replicas >= room.replicas:
        return Wait(
            "instances",
            f"Waiting for a running instance to end: {load.replicas} of at most "
            f"{room.replicas} run.",
        )
    free = room.memory_bytes - load.memory_bytes
    if memory_bytes > free:
        return Wait(
            "memory",
            f"Waiting for memory: needs {in_gib(memory_bytes)}, and {in_gib(max(0, free))} of "
            f"{in_gib(room.memory_bytes)} are free.",
        )
    return None
