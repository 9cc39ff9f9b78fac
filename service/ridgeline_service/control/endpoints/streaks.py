"""What failures of a variant's replicas say of it: whether trying again helps, and when to go back.

Pure: replicas of one variant in, a failure or none out. Knows no endpoint and no deployment.
"""

from __future__ import annotations

from collections.abc import Sequence

from ridgeline_service.store.records import ReplicaRecord
from ridgeline_service.store.states import ReplicaStatus

START_ATTEMPTS = 3
STABLE_US = 60 * 1_000_000


def streak(mine: Sequence[ReplicaRecord], now: int) -> list[ReplicaRecord]:
    """Failures since the variant last proved stable, oldest first.

    It is stable once a replica served for a minute: one that then dies is the first of a new
    streak, and one that still serves ends the streak before it.
    """
    failures: list[ReplicaRecord] = []
    for item in _failed(mine):
        if item.ready_at is not None and item.changed_at - item.ready_at >= STABLE_US:
            failures = []
        failures.append(item)
    proven = [
        item.created_at
        for item in mine
        if item.serves and item.ready_at is not None and now - item.ready_at >= STABLE_US
    ]
    newest = max(proven, default=None)
    return [item for item in failures if newest is None or item.changed_at > newest]


def lasting_failure(mine: Sequence[ReplicaRecord], now: int) -> ReplicaRecord | None:
    """The failure that proves that trying again does not help."""
    failures = streak(mine, now)
    final = [item for item in failures if not item.reason.retried]
    if final:
        return final[0]
    return failures[-1] if len(failures) >= START_ATTEMPTS else None


def failure_while_baking(fleets: Sequence[Sequence[ReplicaRecord]]) -> ReplicaRecord | None:
    """The failure that ends an update which has given traffic to these fleets, one a variant.

    One of several replicas may die once by chance. A variant of which none is left, or a second
    death, is what baking is there to find out.
    """
    died = [[item for item in _failed(mine) if item.ready_at is not None] for mine in fleets]
    for mine, failures in zip(fleets, died, strict=True):
        if failures and not any(item.serves for item in mine):
            return failures[-1]
    every = _failed([item for failures in died for item in failures])
    return every[-1] if len(every) > 1 else None


def _failed(mine: Sequence[ReplicaRecord]) -> list[ReplicaRecord]:
    """Those that failed, the first to fail first."""
    return sorted(
        (item for item in mine if item.status is ReplicaStatus.FAILED),
        key=lambda item: (item.changed_at, item.id),
    )
