"""What failures of replicas say: which end an update, and which an endpoint."""

from __future__ import annotations

import pytest

from ridgeline_service.control.endpoints.streaks import (
    CRASH_LIMIT,
    beyond_starting,
    crashes,
    failure_while_baking,
)
from ridgeline_service.store.records import ReplicaRecord
from ridgeline_service.store.states import Desired, Reason, ReplicaStatus


def fleet(states: str) -> list[ReplicaRecord]:
    """A replica for each letter: (s)erving, (l)oading, (d)ied under traffic, (n)ever was ready,
    had no (r)oom."""
    return [replica(f"{state}{number}", state, number + 1) for number, state in enumerate(states)]


def replica(name: str, state: str, changed_at: int) -> ReplicaRecord:
    statuses = {"s": ReplicaStatus.READY, "l": ReplicaStatus.LOADING}
    return ReplicaRecord(
        id=name,
        endpoint_arn="arn",
        deployment_id="new",
        variant="A",
        status=statuses.get(state, ReplicaStatus.FAILED),
        reason=Reason.ADMISSION_TIMEOUT if state == "r" else Reason.PROCESS_DIED,
        message="",
        desired=Desired.RUNNING,
        created_at=0,
        changed_at=changed_at,
        launched_at=0,
        ready_at=changed_at if state in "sd" else None,
        memory_bytes=1,
        port=1,
        token="",
        pid=None,
        start_time=None,
        task="",
    )


@pytest.mark.parametrize(
    ("fleets", "ends"),
    [
        (["s"], None),
        (["ss", "s"], None),
        (["d"], "d0"),
        (["dl"], "d0"),
        (["ds"], None),
        (["dsl"], None),
        (["dsd"], "d2"),
        (["ns"], None),
        (["nnl"], None),
        (["nds"], None),
        (["sss", "dl"], "d0"),
        (["ds", "sd"], "d1"),
        (["ds", "s"], None),
    ],
)
def test_the_last_of_a_variant_or_a_second_one_ends_it(fleets, ends):
    found = failure_while_baking([fleet(states) for states in fleets])
    assert (found.id if found else None) == ends


@pytest.mark.parametrize(
    ("states", "ends"),
    [
        ("n" * (CRASH_LIMIT - 1), False),
        ("n" * CRASH_LIMIT, True),
        ("d" * 50, False),
        ("d" * 10 + "n" * (CRASH_LIMIT - 1), False),
        ("d" * 10 + "n" * CRASH_LIMIT, True),
        ("n" * (CRASH_LIMIT - 1) + "d" + "n" * (CRASH_LIMIT - 1), False),
        ("n" * (CRASH_LIMIT - 1) + "s", False),
        ("r" * 50, False),
        ("r" * 10 + "n" * CRASH_LIMIT, True),
    ],
)
def test_starts_that_fail_in_a_row_end_it_and_nothing_else_does(states, ends):
    assert beyond_starting(fleet(states), now=1000) == ends


def test_what_had_no_room_did_not_crash():
    assert [item.id for item in crashes(fleet("rdrn"), now=1000)] == ["d1", "n3"]
