"""The life of one warm pool: its job ends, runners wait, then a job takes them or they end.

A runner that waits has its interpreter, its modules and its environment ready, and nothing of the
job before it: it is a new process in a new folder. A job takes runners in the transaction in which
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
from ridgeline_service.store.job_records import Instance, JobStatus
from ridgeline_service.store.warm_pools import PoolRecord, PoolStatus
from ridgeline_service.training.runners import Runners, StandbySpec
from ridgeline_service.training.standby import Standby

_POLL_S = 0.3
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
        """Runners wait only after a job that went well."""
        with self._context.db.write() as connection:
            job = job_rows.get_job(connection, pool.job_arn)
            if job is not None and not job.status.ended:
                return _POLL_S
            well = job is not None and job.status is JobStatus.COMPLETED and pool.keep_alive_s > 0
            if not well or place(connection, self._room, pool.memory_bytes, pool.instance_count):
                rows.move_pool(connection, pool, status=PoolStatus.TERMINATED)
                return None
            rows.move_pool(
                connection,
                pool,
                status=PoolStatus.AVAILABLE,
                available_at=self._context.now(),
                instances=self._instances(pool),
            )
            self._context.event(connection, pool.job_arn, "WarmPool", PoolStatus.AVAILABLE)
        self._context.changed()
        return None

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
            return self._start(pool)
        if not all(self._runners.alive(_record(each)) for each in pool.instances):
            return self._end(pool)
        return min(_LOOK_S, left_us / 1e6)

    def _start(self, pool: PoolRecord) -> float | None:
        """Until all have said that they are ready; from then on a job may take them."""
        known = {record.id: record for record in self._runners.records()}
        before, started = self._runners.ids(), []
        try:
            for instance in pool.instances:
                record = known.get(instance.id)
                if record is None and instance.id in before:
                    return self._end(pool)  # it died
                record = record or self._runners.prepare(self._standby(instance, pool))
                started.append(replace(instance, pid=record.pid, start_time=record.start_time))
        except RidgelineError:
            return self._end(pool)
        if not all(self._runners.is_ready(instance.id) for instance in started):
            return _STARTING_POLL_S
        with self._context.db.write() as connection:
            rows.move_pool(connection, pool, instances=tuple(started))
        return _LOOK_S

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
        known = {record.id: record for record in self._runners.records()}
        for instance in pool.instances:
            if instance.id in known:
                self._runners.kill(known[instance.id])
            self._runners.remove(instance.id)
        with self._context.db.write() as connection:
            rows.move_pool(connection, pool, instances=(), ended_at=self._context.now())
            self._context.event(connection, pool.job_arn, "WarmPool", PoolStatus.TERMINATED)
        return None


def _record(instance: Instance) -> ProcessRecord:
    assert instance.pid is not None
    assert instance.start_time is not None
    return ProcessRecord(instance.id, instance.pid, instance.start_time, instance.token)
