"""The life of one warm pool: its job runs and ends, runners wait, a job takes them or they end.

A runner that waits has its interpreter, its modules and its environment ready, and nothing of the
job before it: it is a new process in a new folder. It is started while the script of the pool's job
runs, so that it is there when that ends. A job takes runners in the transaction in which
it is admitted (``store/warm_pools.py``), so that no two have them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ridgeline.errors import RidgelineError
from ridgeline_service.control.admitting import place
from ridgeline_service.control.context import Context
from ridgeline_service.control.jobs.orders import hosts_of
from ridgeline_service.placement.admission import Room
from ridgeline_service.runtime.keeper import ProcessRecord
from ridgeline_service.store import jobs as job_rows
from ridgeline_service.store import warm_pools as rows
from ridgeline_service.store.job_records import Instance, JobRecord, JobStatus
from ridgeline_service.store.warm_pools import PoolRecord, PoolStatus
from ridgeline_service.training.runners import Runners, StandbySpec
from ridgeline_service.training.standby import Standby

_POLL_S = 0.5
_STARTING_POLL_S = 0.1
_LOOK_S = 2.0


class PoolLife:
    """Steps of warm pools. Thread-safe: one step a pool at a time."""

    def __init__(
        self,
        context: Context,
        *,
        runners: Runners,
        room: Room,
        tokens: Callable[[], str],
    ) -> None:
        self._context = context
        self._runners = runners
        self._room = room
        self._tokens = tokens

    def step(self, pool: PoolRecord) -> float | None:
        """Do what is due. Returns after how many seconds to look again; None at the end."""
        if pool.status is PoolStatus.IN_USE:
            return self._settle(pool)
        if pool.status is PoolStatus.AVAILABLE:
            return self._keep(pool)
        return self._clear(pool)

    def _settle(self, pool: PoolRecord) -> float | None:
        """Runners wait for others only after a job that went well."""
        with self._context.db.read() as connection:
            job = job_rows.get_job(connection, pool.job_arn)
        if job is not None and not job.status.ended:
            return self._prepare(pool, job)
        with self._context.db.write() as connection:
            well = job is not None and job.status is JobStatus.COMPLETED and pool.keep_alive_s > 0
            if not well or place(connection, self._room, pool.memory_bytes, pool.instance_count):
                rows.move_pool(connection, pool, status=PoolStatus.TERMINATED)
                return None
            rows.move_pool(
                connection,
                pool,
                status=PoolStatus.AVAILABLE,
                available_at=self._context.now(),
                instances=pool.instances or self._instances(pool),
            )
            self._context.event(connection, pool.job_arn, "WarmPool", PoolStatus.AVAILABLE)
        self._context.changed()
        return None

    def _prepare(self, pool: PoolRecord, job: JobRecord) -> float:
        """Have runners ready by the job's end, once its own start cannot be slowed by that."""
        runs = any(each.status == "Training" for each in job.moments)
        if not runs or not pool.keep_alive_s:
            return _POLL_S
        if not pool.instances:
            pool = replace(pool, instances=self._instances(pool))
            with self._context.db.write() as connection:
                rows.move_pool(connection, pool, instances=pool.instances)
        if pool.is_ready:
            if not self._all_live(pool):
                self._drop(pool)
            return _LOOK_S
        ready = self._started(pool)
        if ready is None:
            self._drop(pool)
        return _LOOK_S if ready is not False else _STARTING_POLL_S

    def _instances(self, pool: PoolRecord) -> tuple[Instance, ...]:
        """Named before they are started, so that they are known whatever happens then."""
        id_ = self._context.ids()
        return tuple(
            Instance(id=f"{id_}-warm-{host}", token=self._tokens(), host=host, log_stream="")
            for host in hosts_of(pool.instance_count)
        )

    def _keep(self, pool: PoolRecord) -> float | None:
        left_us = (pool.expires_at or 0) - self._context.now()
        if left_us <= 0:
            return self._end(pool)
        if not pool.is_ready:
            ready = self._started(pool)
            if ready is None:
                return self._end(pool)
            return _LOOK_S if ready else _STARTING_POLL_S
        if not self._all_live(pool):
            return self._end(pool)
        return min(_LOOK_S, left_us / 1e6)

    def _all_live(self, pool: PoolRecord) -> bool:
        return all(self._runners.alive(_record(each)) for each in pool.instances)

    def _started(self, pool: PoolRecord) -> bool | None:
        """Whether all have said that they are ready, from when on a job may take them; None if one
        died or cannot be started."""
        known = {record.id: record for record in self._runners.records()}
        before, started = self._runners.ids(), []
        try:
            for instance in pool.instances:
                record = known.get(instance.id)
                if record is None and instance.id in before:
                    return None
                record = record or self._runners.prepare(self._standby(instance, pool))
                started.append(replace(instance, pid=record.pid, start_time=record.start_time))
        except RidgelineError:
            return None
        if not all(self._runners.is_ready(instance.id) for instance in started):
            return False
        with self._context.db.write() as connection:
            rows.move_pool(connection, pool, instances=tuple(started))
        self._context.changed()  # a job may wait for them
        return True

    def _standby(self, instance: Instance, pool: PoolRecord) -> StandbySpec:
        settings, cache = self._context.settings, self._context.data_dir.cache
        what = Standby(pool.runtime, str(cache), settings.region)
        return StandbySpec(instance.id, instance.token, what)

    def _end(self, pool: PoolRecord) -> float | None:
        """A job may have been faster, and have taken the runners."""
        with self._context.db.write() as connection:
            ended = rows.move_pool(connection, pool, status=PoolStatus.TERMINATED)
        if ended:
            self._context.changed()
        return 0.0 if ended else None

    def _clear(self, pool: PoolRecord) -> float | None:
        """End the runners of a pool that is over, for whatever reason."""
        self._drop(pool)
        with self._context.db.write() as connection:
            rows.move_pool(connection, pool, ended_at=self._context.now())
            self._context.event(connection, pool.job_arn, "WarmPool", PoolStatus.TERMINATED)
        return None

    def _drop(self, pool: PoolRecord) -> None:
        """End its runners."""
        known = {record.id: record for record in self._runners.records()}
        for instance in pool.instances:
            if instance.id in known:
                self._runners.kill(known[instance.id])
            self._runners.remove(instance.id)
        with self._context.db.write() as connection:
            rows.move_pool(connection, pool, instances=())


def _record(instance: Instance) -> ProcessRecord:
    assert instance.pid is not None
    assert instance.start_time is not None
    return ProcessRecord(instance.id, instance.pid, instance.start_time, instance.token)
