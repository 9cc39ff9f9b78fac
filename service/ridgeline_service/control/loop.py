"""The one loop that drives endpoints, replicas and jobs: woken by changes, else when one is due.

It reads all living rows at once, lets endpoints decide, and has the drivers hand rows that are due
to worker threads. It also adopts the processes of a control plane that died, and ends processes
that nobody knows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence, Set
from functools import partial

from sqlalchemy import Connection

from ridgeline_service.control.context import Context
from ridgeline_service.control.driver import AFTER_A_BUG_S, Driver
from ridgeline_service.control.endpoints.life import EndpointLife
from ridgeline_service.control.jobs.queue import JobQueue
from ridgeline_service.control.jobs.work import remove_work, work_folders
from ridgeline_service.runtime.keeper import ProcessRecord
from ridgeline_service.runtime.launcher import Launcher
from ridgeline_service.store import command_jobs, journal, replicas, tuning_jobs, warm_pools
from ridgeline_service.store import jobs as job_rows
from ridgeline_service.store.command_jobs import CommandJob
from ridgeline_service.store.job_records import JobPhase, JobRecord
from ridgeline_service.store.outage import log_failure
from ridgeline_service.store.records import ReplicaRecord
from ridgeline_service.store.states import Desired
from ridgeline_service.store.tuning_records import TuningRecord
from ridgeline_service.store.warm_pools import PoolRecord, PoolStatus
from ridgeline_service.telemetry.logs import LogStore
from ridgeline_service.training.runners import Runners

IDLE_S = 5.0
QUEUED_S = 0.5
SWEEP_S = 60.0
EVENTS_KEPT = 20_000
MAX_ROUNDS = 20

log = logging.getLogger(__name__)


class Loop:
    """``tick`` is the whole of it; ``run`` repeats it on a thread until ``stop``."""

    def __init__(
        self,
        context: Context,
        *,
        endpoints: EndpointLife,
        replica_driver: Driver[ReplicaRecord],
        job_queue: JobQueue,
        job_driver: Driver[JobRecord],
        tuning_driver: Driver[TuningRecord],
        command_driver: Driver[CommandJob],
        pool_driver: Driver[PoolRecord],
        launcher: Launcher,
        runners: Runners,
        submit: Callable[[Callable[[], None]], None],
        publish: Callable[[], None],
        wake: threading.Event,
    ) -> None:
        self._context = context
        self._endpoints = endpoints
        self._replica_driver = replica_driver
        self._job_queue = job_queue
        self._job_driver = job_driver
        self._tuning_driver = tuning_driver
        self._command_driver = command_driver
        self._pool_driver = pool_driver
        self._launcher = launcher
        self._runners = runners
        self._submit = submit
        self._publish = publish
        self._wake = wake
        self._stopping = False
        self._latest: dict[str, Desired] = {}
        self._next_sweep = 0.0

    def wanted(self, replica_id: str) -> bool:
        """Whether the replica is still wanted, as of the last tick."""
        return not self._stopping and self._latest.get(replica_id) is Desired.RUNNING

    def run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                pause = self.tick()
            except Exception as error:  # noqa: BLE001 - nothing may end the loop
                text = "the reconcilers failed and go on in %s s"
                log_failure(log, error, text, AFTER_A_BUG_S)
                pause = AFTER_A_BUG_S
            self._wake.wait(pause)

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def release(self) -> None:
        """Give the claims back, so that the next control plane need not wait for their end."""
        self._replica_driver.release()
        self._job_driver.release()
        self._tuning_driver.release()
        self._command_driver.release()
        self._pool_driver.release()

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
            jobs = job_rows.living_jobs(connection)
            tunings = tuning_jobs.living_tunings(connection)
            commands = command_jobs.living_command_jobs(connection)
            pools = warm_pools.living_pools(connection)
        self._latest = {replica.id: replica.desired for replica in living}
        if now >= self._next_sweep:
            self._sweep(now)
        next_at = now + IDLE_S
        if outcome.retry_at is not None:
            next_at = min(next_at, outcome.retry_at / 1e6)
        next_at = self._replica_driver.look(living, self._latest, now, next_at)
        due = self._job_queue.due(jobs)
        if len(due) < len(jobs):
            next_at = min(next_at, now + QUEUED_S)
        next_at = self._job_driver.look(due, [job.arn for job in due], now, next_at)
        arns = [tuning.arn for tuning in tunings]
        next_at = self._tuning_driver.look(tunings, arns, now, next_at)
        names = [job.arn for job in commands]
        next_at = self._command_driver.look(commands, names, now, next_at)
        arns = [pool.job_arn for pool in pools]
        next_at = self._pool_driver.look(pools, arns, now, next_at)
        return max(0.0, next_at - now)

    def adopt(self) -> None:
        """After a start: note what lives on and what went down, and end what no row knows."""
        kept = work_folders(self._context.data_dir)  # before the rows: a new folder has one then
        with self._context.db.read() as connection:
            living = replicas.living_replicas(connection)
            jobs = job_rows.living_jobs(connection)
            runners = _runners_known(connection)
        for job_id in kept - {job.id for job in jobs}:
            # Its control plane was killed between its end and the end of this.
            remove_work(self._context.data_dir, job_id)
        known = {
            replica.id: (replica.token, f"{replica.endpoint_arn}/{replica.variant}/{replica.id}")
            for replica in living
        }
        for record in self._launcher.records():
            if not self._is_known(record, known.get(record.id)):
                self._launcher.stop(record, 0)
                self._launcher.remove(record.id)
        living_runners = set()
        for record in self._runners.records():
            if self._is_known(record, runners.get(record.id)):
                living_runners.add(record.id)
            else:
                self._runners.kill(record)
        self._note_downfall(jobs, living_runners)
        for id_ in self._runners.ids():
            # Also what a control plane left that was killed between a job's end and its folder's.
            if id_ not in runners:
                self._runners.remove(id_)

    def _note_downfall(self, jobs: Sequence[JobRecord], living: Set[str]) -> None:
        """A job whose runners all went down while no control plane was there was interrupted, as by
        a restart of the machine. Where it is known how a runner ended, its shim outlived it: that
        was killed alone."""
        exit_status = self._runners.exit_status
        lost = [
            job.arn
            for job in jobs
            if job.phase is JobPhase.RUNNING
            and not any(each.id in living or exit_status(each.id) for each in job.instances)
        ]
        with self._context.db.write() as connection:
            job_rows.forget_boot(connection, lost)

    def _is_known(self, record: ProcessRecord, row: tuple[str, str] | None) -> bool:
        """Whether a row has the process, by its token; says so in the journal."""
        message = f"process {record.pid}"
        with self._context.db.write() as connection:
            if row is not None and row[0] == record.token:
                self._context.event(connection, row[1], "Adopted", message=f"{message} lives on")
                return True
            self._context.event(connection, record.id, "Fenced", message=message)
        return False

    def _sweep(self, now: float) -> None:
        """What accumulates: old events and logs, and processes whose rows are gone."""
        first = self._next_sweep == 0.0
        self._next_sweep = now + SWEEP_S
        if first:
            return  # ``adopt`` has just done it
        with self._context.db.write() as connection:
            journal.prune_events(connection, EVENTS_KEPT)
        LogStore(self._context.data_dir).expire(int(now * 1000))
        # Before the rows: what is started in between has a row then.
        started = self._runners.records()
        with self._context.db.read() as connection:
            ids = {replica.id for replica in replicas.all_replicas(connection)}
            runners = _runners_known(connection)
        for record in self._launcher.records():
            if record.id not in ids:
                self._submit(partial(self._launcher.stop, record, 0))
        for record in started:
            if record.id not in runners:
                self._submit(partial(self._runners.kill, record))


def _runners_known(connection: Connection) -> dict[str, tuple[str, str]]:
    """Of all runners that rows have, of jobs and of warm pools: their tokens and what they are."""
    found = {
        instance.id: (instance.token, f"{job.arn}/{instance.host}")
        for job in job_rows.living_jobs(connection)
        for instance in job.instances
    }
    for pool in warm_pools.living_pools(connection):
        if pool.status in (PoolStatus.IN_USE, PoolStatus.AVAILABLE):
            for each in pool.instances:
                found[each.id] = (each.token, f"{pool.job_arn}/warm/{each.host}")
    return found
