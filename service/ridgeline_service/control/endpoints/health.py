"""Whether a replica that serves still does: one that is busy may miss a look, but not five."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ridgeline_service.control.endpoints.probe import Identity
from ridgeline_service.store.states import Reason

HUNG_AFTER = 5
PROBE_EVERY_S = 5.0


@dataclass
class _Looks:
    """What is remembered of a replica between looks, and can be lost without harm."""

    missed: int = 0
    next_at: float = 0.0


class HealthChecks:
    """Thread-safe: one look a replica at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._looks: dict[str, _Looks] = {}

    def look(
        self, replica_id: str, ask: Callable[[], Identity | None]
    ) -> tuple[Reason, str] | None:
        """What is wrong with it; None: nothing, or not yet, or a look is not due."""
        looks = self._looks.setdefault(replica_id, _Looks())
        now = self._clock()
        if now < looks.next_at:
            return None
        looks.next_at = now + PROBE_EVERY_S
        identity = ask()
        if identity is not None and identity.state == "ready":
            looks.missed = 0
            return None
        if identity is not None and identity.state == "failed":
            return Reason.DEVICE_FAILED, identity.error
        looks.missed += 1
        if looks.missed < HUNG_AFTER:
            return None
        return Reason.HUNG, f"it left {looks.missed} health checks in a row without an answer."

    def forget(self, replica_id: str) -> None:
        self._looks.pop(replica_id, None)
