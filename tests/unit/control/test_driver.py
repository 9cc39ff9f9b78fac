"""Rows are driven as they are when nobody else can change them, not as they were when the loop
looked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ridgeline_service.control.context import Context
from ridgeline_service.control.driver import Driver, Holder, Subject
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import Settings
from ridgeline_service.store import open_database, warm_pools
from ridgeline_service.store.warm_pools import PoolRecord, PoolStatus

ARN = "arn:aws:sagemaker:us-east-1:000000000000:training-job/j"


class Driven:
    """A driver of warm pools whose step moves a pool on to its next status, and keeps what it was
    given."""

    def __init__(self, context: Context, name: str = "this plane") -> None:
        self.given: list[PoolStatus] = []
        self._context = context
        subject = Subject(
            claims=warm_pools.CLAIMS,
            living=warm_pools.living_pools,
            key=lambda pool: pool.job_arn,
            seen=lambda pool: pool.status,
            step=self._step,
        )
        holder = Holder(name, lambda other: False)
        self.driver = Driver(
            context, subject, holder, submit=lambda task: task(), wake=threading.Event()
        )

    def read(self) -> list[PoolRecord]:
        with self._context.db.read() as connection:
            return warm_pools.living_pools(connection)

    def look(self, rows: list[PoolRecord]) -> None:
        now = self._context.clock()
        self.driver.look(rows, [row.job_arn for row in rows], now, now + 5)

    def _step(self, pool: PoolRecord) -> float | None:
        self.given.append(pool.status)
        following = {
            PoolStatus.IN_USE: PoolStatus.AVAILABLE,
            PoolStatus.AVAILABLE: PoolStatus.TERMINATED,
        }
        with self._context.db.write() as connection:
            warm_pools.move_pool(connection, pool, status=following[pool.status])
        return 0.0


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    data_dir, settings = DataDir(tmp_path), Settings()
    database = open_database(settings, data_dir)
    yield Context(
        database,
        settings,
        data_dir,
        clock=lambda: 1_700_000_000.0,
        ids=lambda: "1",
        changed=lambda: None,
    )
    database.close()


@pytest.fixture(autouse=True)
def pool(context: Context) -> None:
    record = PoolRecord(ARN, PoolStatus.IN_USE, "kind", 60, "pytorch", 1, 1 << 30)
    with context.db.write() as connection:
        warm_pools.add_pool(connection, record)


def test_a_row_that_was_read_before_its_last_step_ended_is_read_again(context: Context) -> None:
    driven = Driven(context)
    before = driven.read()
    driven.look(before)
    driven.look(before)
    assert driven.given == [PoolStatus.IN_USE, PoolStatus.AVAILABLE]


def test_a_row_that_is_over_is_not_driven_on_by_what_was_read_before(context: Context) -> None:
    driven = Driven(context)
    before = driven.read()
    driven.look(before)
    driven.look(driven.read())
    driven.driver.hurry(ARN)  # as the end of its process does
    driven.look(before)
    assert driven.given == [PoolStatus.IN_USE, PoolStatus.AVAILABLE]


def test_a_row_that_another_took_meanwhile_is_left_to_it(context: Context) -> None:
    this, other = Driven(context), Driven(context, "another plane")
    this.look(this.read())
    held_by_this = this.read()
    this.driver.release()
    other.look(other.read())
    this.look(held_by_this)
    assert (this.given, other.given) == ([PoolStatus.IN_USE], [PoolStatus.AVAILABLE])


def test_a_row_that_another_holds_is_looked_at_now_and_then(context: Context) -> None:
    this, other = Driven(context), Driven(context, "another plane")
    this.look(this.read())
    held_by_this = this.read()
    this.driver.release()
    other.look(other.read())
    now = context.clock()
    for rows in (held_by_this, this.read(), this.read()):
        assert this.driver.look(rows, [ARN], now, now + 5) > now
