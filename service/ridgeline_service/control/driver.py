"""Drives the rows of one table: claims those that are due and has a worker take each one step on.

What a step does is the row's life's; when the loop looks is the loop's. What it has read is only
good to see which rows are due: a worker may have changed one since. A step is given its row as it
is once nobody else can change it. A driver remembers only when each row is due, and can lose that
without harm.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection

from ridgeline_service.control.context import Context
from ridgeline_service.store.claims import Claims
from ridgeline_service.store.outage import log_failure

CLAIM_S = 10.0
HEARTBEAT_S = 3.0
AFTER_A_BUG_S = 5.0
BUSY_LOOK_S = 1.0
SLACK_S = 0.05

log = logging.getLogger(__name__)


class Row(Protocol):
    """What a claimed row has."""

    @property
    def lock_token(self) -> str | None: ...
    @property
    def lock_expires_at(self) -> int: ...


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Subject(Generic[R]):
    """The rows of one kind: their claims, which of them live, what names one, what makes a change
    of it worth a look at once, and the step."""

    claims: Claims
    living: Callable[[Connection, ColumnElement[bool]], Sequence[R]]
    key: Callable[[R], str]
    seen: Callable[[R], object]
    step: Callable[[R], float | None]


@dataclass(frozen=True)
class Holder:
    """Who claims, and how it is known that another holder died."""

    name: str
    is_dead: Callable[[str], bool]


@dataclass
class _Due:
    """When a row is looked at next, and what it said last time."""

    at: float
    seen: object


class Driver(Generic[R]):
    """``look`` is called by the loop alone; steps run wherever ``submit`` takes them."""

    def __init__(
        self,
        context: Context,
        subject: Subject[R],
        holder: Holder,
        *,
        submit: Callable[[Callable[[], None]], None],
        wake: threading.Event,
    ) -> None:
        self._context = context
        self._subject = subject
        self._holder = holder
        self._submit = submit
        self._wake = wake
        self._due: dict[str, _Due] = {}
        self._busy: set[str] = set()
        self._hurried: set[str] = set()
        self._lock = threading.Lock()
        self._next_heartbeat = 0.0
        self._sleeps_until = 0.0

    def look(self, rows: Sequence[R], living: Iterable[str], now: float, idle_at: float) -> float:
        """Hand rows that are due to workers; returns when the next one will be, at most
        ``idle_at``. ``living`` names all that are remembered."""
        self._heartbeat(rows, now)
        next_at = min([idle_at, *(self._look_at(row, now) for row in rows)])
        names = set(living)
        with self._lock:
            self._due = {name: due for name, due in self._due.items() if name in names}
            self._hurried &= names
            next_at = min([next_at, *(due.at for due in self._due.values())])
            self._sleeps_until = next_at
        return next_at

    def hurry(self, name: str) -> None:
        """Look at this row now, whenever that was due."""
        with self._lock:
            self._hurried.add(name)
        self._wake.set()

    def release(self) -> None:
        """Give the claims back, so that the next control plane need not wait for their end."""
        with self._context.db.write() as connection:
            self._subject.claims.release(connection, self._holder.name)

    def _look_at(self, row: R, now: float) -> float:
        """Hand the row to a worker if it is due; else when it will be."""
        name, seen = self._subject.key(row), self._subject.seen(row)
        with self._lock:
            if name in self._busy:
                return now + BUSY_LOOK_S  # its worker wakes the loop if that is too late
            due = None if name in self._hurried else self._due.get(name)
            self._hurried.discard(name)
            # What is due in a moment is done now, so that one tick serves all that are ready.
            if due is not None and due.seen == seen and due.at > now + SLACK_S:
                return due.at
        if not self._claim(row, now):
            with self._lock:
                self._due[name] = _Due(now + HEARTBEAT_S, seen)
            return now + HEARTBEAT_S
        with self._lock:
            self._busy.add(name)
            self._due.pop(name, None)
        self._submit(lambda: self._step(row))
        return now + BUSY_LOOK_S

    def _claim(self, row: R, now: float) -> bool:
        if row.lock_token == self._holder.name and row.lock_expires_at > now * 1e6:
            return True
        with self._context.db.write() as connection:
            return self._subject.claims.take(
                connection,
                self._subject.key(row),
                self._holder.name,
                now=int(now * 1e6),
                expires_at=int((now + CLAIM_S) * 1e6),
                holder_is_dead=self._holder.is_dead,
            )

    def _step(self, row: R) -> None:
        """One step of the row as it is now: ``row`` was read before it was claimed."""
        name = self._subject.key(row)
        again: float | None = AFTER_A_BUG_S
        try:
            fresh = self._read(name)
            if fresh is not None:
                row = fresh
            again = HEARTBEAT_S if fresh is None else self._subject.step(fresh)
        except Exception as error:  # noqa: BLE001 - one row's bug must not stop the others
            log_failure(log, error, "a step of %s failed", name)
        finally:
            at = self._context.clock() + (0.0 if again is None else again)
            with self._lock:
                if name in self._hurried:
                    at = self._context.clock()
                self._busy.discard(name)
                self._due[name] = _Due(at, self._subject.seen(row))
                sooner = at < self._sleeps_until
            if sooner:
                self._wake.set()

    def _read(self, name: str) -> R | None:
        """None if it is over, or another's."""
        with self._context.db.read() as connection:
            rows = self._subject.living(connection, self._subject.claims.key == name)
        return next((row for row in rows if row.lock_token == self._holder.name), None)

    def _heartbeat(self, rows: Sequence[R], now: float) -> None:
        if now < self._next_heartbeat:
            return
        self._next_heartbeat = now + HEARTBEAT_S
        if any(row.lock_token == self._holder.name for row in rows):
            with self._context.db.write() as connection:
                self._subject.claims.renew(
                    connection,
                    self._holder.name,
                    int((now + CLAIM_S) * 1e6),
                    now=int(now * 1e6),
                )
