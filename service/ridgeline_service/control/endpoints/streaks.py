"""What failures of a variant's replicas say of it: whether trying again helps, and when to go back.

Pure: replicas of one variant in, a failure or none out. Knows no endpoint and no deployment.
"""

from __future__ import annotations

from collections.abc import Sequence

from ridgeline_service.store.records import ReplicaRecord
from ridgeline_service.store.states import Reason, ReplicaStatus

START_ATTEMPTS = 3
CRASH_LIMIT = 8
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


def crashes(mine: Sequence[ReplicaRecord], now: int) -> list[ReplicaRecord]:
    """The streak without those that found no room: a later one may, and waits for it."""
    return [item for item in streak(mine, now) if item.reason is not Reason.ADMISSION_TIMEOUT]


def beyond_starting(mine: Sequence[ReplicaRecord], now: int) -> bool:
    """Whether so many starts in a row failed that no other one helps.

    A replica that became ready shows that they do. If it died then, of a request or of anything
    else, the next one may live, however often that happens.
    """
    ready = max((item.ready_at for item in mine if item.ready_at is not None), default=0)
    starts = [item for item in crashes(mine, now) if item.changed_at > ready]
    return sum(item.ready_at is None for item in starts) >= CRASH_LIMIT


def proven_at(mine: Sequence[ReplicaRecord], now: int) -> int | None:
    """When the next of those that serve will have done so for long enough to end a streak."""
    due = [item.ready_at + STABLE_US for item in mine if item.serves and item.ready_at is not None]
    return min((moment for moment in due if moment > now), default=None)


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
