"""The one loop that drives endpoints and replicas: woken by changes, else by the next thing due.

It reads all living rows at once, lets endpoints decide, and hands replicas that are due to worker
threads, one step each. It also renews this control plane's claims, adopts the processes of one
that died, and ends processes that nobody knows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoint_life import EndpointLife
from ridgeline_service.control.replica_life import ReplicaLife
from ridgeline_service.runtime.launcher import Launcher
from ridgeline_service.store import journal, replicas
from ridgeline_service.store.records import ReplicaRecord
from ridgeline_service.store.states import Desired, ReplicaStatus

CLAIM_S = 10.0
HEARTBEAT_S = 3.0
IDLE_S = 5.0
SWEEP_S = 60.0
EVENTS_KEPT = 20_000
AFTER_A_BUG_S = 5.0
BUSY_LOOK_S = 1.0
SLACK_S = 0.05
MAX_ROUNDS = 20

log = logging.getLogger(__name__)


@dataclass
class _Due:
    """When a replica is looked at next, and what its row said last time."""

    at: float
    seen: tuple[ReplicaStatus, Desired]


class Loop:
    """``tick`` is the whole of it; ``run`` repeats it on a thread until ``stop``."""

    def __init__(
        self,
        context: Context,
        *,
        holder: str,
        endpoints: EndpointLife,
        life: ReplicaLife,
        launcher: Launcher,
        submit: Callable[[Callable[[], None]], None],
        publish: Callable[[], None],
        holder_is_dead: Callable[[str], bool],
        wake: threading.Event,
    ) -> None:
        self._context = context
        self._holder = holder
        self._endpoints = endpoints
        self._life = life
        self._launcher = launcher
        self._submit = submit
        self._publish = publish
        self._holder_is_dead = holder_is_dead
        self._wake = wake
        self._stopping = False
        self._due: dict[str, _Due] = {}
        self._busy: set[str] = set()
        self._latest: dict[str, Desired] = {}
        self._lock = threading.Lock()
        self._next_heartbeat = 0.0
        self._next_sweep = 0.0
        self._sleeps_until = 0.0

    def wanted(self, replica_id: str) -> bool:
        """Whether the replica is still wanted, as of the last tick."""
        return not self._stopping and self._latest.get(replica_id) is Desired.RUNNING

    def run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                pause = self.tick()
            except Exception:  # a bug or a database that is away must not end the loop
                log.exception("the reconcilers failed; they go on in %s s", AFTER_A_BUG_S)
                pause = AFTER_A_BUG_S
            self._wake.wait(pause)

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def release(self) -> None:
        """Give the claims back, so that the next control plane need not wait for their end."""
        with self._context.db.write() as connection:
            replicas.release_claims(connection, self._holder)

    def tick(self) -> float:
        """One round. Returns for how many seconds nothing will be due, if nothing changes."""
        now = self._context.clock()
        outcome = self._endpoints.reconcile_all()
        for _ in range(MAX_ROUNDS):
            if not outcome.changed:
                break
            self._publish()
            outcome = self._endpoints.reconcile_all()
        with self._context.db.read() as connection:
            living = replicas.living_replicas(connection)
        self._latest = {replica.id: replica.desired for replica in living}
        self._heartbeat(living, now)
        if now >= self._next_sweep:
            self._sweep(now)
        next_at = now + IDLE_S
        if outcome.retry_at is not None:
            next_at = min(next_at, outcome.retry_at / 1e6)
        for replica in living:
            next_at = min(next_at, self._look_at(replica, now))
        with self._lock:
            self._due = {name: due for name, due in self._due.items() if name in self._latest}
            next_at = min([next_at, *(due.at for due in self._due.values())])
            self._sleeps_until = next_at
        return max(0.0, next_at - now)

    def adopt(self) -> None:
        """After a start: note what lives on, and end what no row knows."""
        records = self._launcher.records()
        if not records:
            return
        with self._context.db.read() as connection:
            known = {replica.id: replica for replica in replicas.living_replicas(connection)}
        for record in records:
            replica = known.get(record.id)
            with self._context.db.write() as connection:
                if replica is not None and replica.token == record.token:
                    resource = f"{replica.endpoint_arn}/{replica.variant}/{replica.id}"
                    message = f"process {record.pid} lives on"
                    self._context.event(connection, resource, "Adopted", message=message)
                    continue
                self._context.event(
                    connection, record.id, "Fenced", message=f"process {record.pid}"
                )
            self._launcher.stop(record, 0)
            self._launcher.remove(record.id)

    def _look_at(self, replica: ReplicaRecord, now: float) -> float:
        """Hand the replica to a worker if it is due; else when it will be."""
        with self._lock:
            if replica.id in self._busy:
                return now + BUSY_LOOK_S  # its worker wakes the loop if that is too late
            due = self._due.get(replica.id)
            # What is due in a moment is done now, so that one tick serves all that are ready.
            seen = (replica.status, replica.desired)
            if due is not None and due.seen == seen and due.at > now + SLACK_S:
                return due.at
        if not self._claim(replica, now):
            return now + HEARTBEAT_S
        with self._lock:
            self._busy.add(replica.id)
            self._due.pop(replica.id, None)
        self._submit(lambda: self._step(replica))
        return now + BUSY_LOOK_S

    def _claim(self, replica: ReplicaRecord, now: float) -> bool:
        if replica.lock_token == self._holder and replica.lock_expires_at > now * 1e6:
            return True
        with self._context.db.write() as connection:
            return replicas.claim_replica(
                connection,
                replica.id,
                self._holder,
                now=int(now * 1e6),
                expires_at=int((now + CLAIM_S) * 1e6),
                holder_is_dead=self._holder_is_dead,
            )

    def _step(self, replica: ReplicaRecord) -> None:
        again: float | None = AFTER_A_BUG_S
        try:
            again = self._life.step(replica)
        except Exception:  # one replica's bug or a lost database must not stop the others
            log.exception("a step of replica %s failed", replica.id)
        finally:
            at = self._context.clock() + (0.0 if again is None else again)
            with self._lock:
                self._busy.discard(replica.id)
                self._due[replica.id] = _Due(at, (replica.status, replica.desired))
                sooner = at < self._sleeps_until
            if sooner:
                self._wake.set()

    def _heartbeat(self, living: list[ReplicaRecord], now: float) -> None:
        if now < self._next_heartbeat:
            return
        self._next_heartbeat = now + HEARTBEAT_S
        if any(replica.lock_token == self._holder for replica in living):
            with self._context.db.write() as connection:
                replicas.renew_claims(
                    connection, self._holder, int((now + CLAIM_S) * 1e6), now=int(now * 1e6)
                )

    def _sweep(self, now: float) -> None:
        """What accumulates: old events, and processes whose rows are gone."""
        first = self._next_sweep == 0.0
        self._next_sweep = now + SWEEP_S
        if first:
            return  # ``adopt`` has just done it
        with self._context.db.write() as connection:
            journal.prune_events(connection, EVENTS_KEPT)
        with self._context.db.read() as connection:
            ids = {replica.id for replica in replicas.all_replicas(connection)}
        for record in self._launcher.records():
            if record.id not in ids:
                self._submit(partial(self._launcher.stop, record, 0))
