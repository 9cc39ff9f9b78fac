"""The life of one replica, step by step: admission, staging, start, load, readiness, end.

A step looks at the row, does what its status asks for and writes back under the claim; it may
block (a download, a drain), so it runs on a worker thread and outside any transaction. Which
replicas should exist is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ridgeline.errors import RidgelineError
from ridgeline_service.control.admitting import place
from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.failures import failure_message
from ridgeline_service.control.endpoints.health import HealthChecks
from ridgeline_service.control.endpoints.launching import GRACE_S, launch_order, replica_identity
from ridgeline_service.control.endpoints.probe import Identity, Probe
from ridgeline_service.control.endpoints.replica_logs import write_first_line
from ridgeline_service.control.endpoints.replica_rows import (
    ReplicaRows,
    joined,
    resource_of,
    variant_of,
)
from ridgeline_service.control.endpoints.stages import DownloadLimit, StageTable, ended
from ridgeline_service.control.staging import (
    Staged,
    Stager,
    StagingCancelled,
    StagingFailed,
)
from ridgeline_service.endings import is_out_of_memory, sentences
from ridgeline_service.placement.admission import Room
from ridgeline_service.placement.gpus import GpuShares
from ridgeline_service.placement.machine import in_gib
from ridgeline_service.placement.profiles import gpus_of
from ridgeline_service.placement.threads import thread_share
from ridgeline_service.runtime.keeper import ExitStatus, ProcessRecord
from ridgeline_service.runtime.launcher import Launcher
from ridgeline_service.store import endpoints as rows
from ridgeline_service.store import replicas
from ridgeline_service.store.records import EndpointRecord, ReplicaRecord, Stage, VariantSpec
from ridgeline_service.store.states import Desired, Reason, ReplicaStatus
from ridgeline_service.training.causes import Cause
from ridgeline_service.training.report import asked_for_stop

ADMISSION_TIMEOUT_S = 1800.0
DRAIN_MIN_S = 1.0
DRAIN_MAX_S = 30.0

_PENDING_POLL_S = 2.0
_STARTING_POLL_S = 0.1
_SLOW_START_POLL_S = 0.5
_READY_POLL_S = 1.0
_DRAIN_POLL_S = 0.2

_WAITS = {"instances": Reason.WAITING_FOR_INSTANCES, "memory": Reason.WAITING_FOR_MEMORY}
_BY_STATE = {
    "starting": ReplicaStatus.STARTING,
    "loading": ReplicaStatus.LOADING,
    "warming": ReplicaStatus.WARMING,
}


class ReplicaLife:
    """Steps of replicas claimed by ``holder``. Thread-safe: one step a replica at a time."""

    def __init__(
        self,
        context: Context,
        *,
        holder: str,
        launcher: Launcher,
        stager: Stager,
        probe: Probe,
        room: Room,
        cores: int,
        gpus: GpuShares,
        compile_cache: Mapping[str, str],
        wanted: Callable[[str], bool],
        changed: Callable[[], None],
    ) -> None:
        """``compile_cache`` is for replicas on simulated devices; ``wanted`` tells during a long
        staging whether the replica is still wanted; ``changed`` brings the routes up to date and
        is called after every change of status."""
        self._context = context
        self._rows = ReplicaRows(context, holder, changed)
        self._launcher = launcher
        self._stager = stager
        self._probe = probe
        self._room = room
        self._cores = cores
        self._gpus = gpus
        self._compile_cache = compile_cache
        self._wanted = wanted
        self._began = context.now()
        self._health = HealthChecks(context.clock)

    def step(self, replica: ReplicaRecord) -> float | None:
        """Do what is due. Returns after how many seconds to look again; None at the end."""
        if replica.status.ended:
            self._forget(replica)
            return None
        if replica.desired is Desired.STOPPED:
            return self._end(replica)
        if replica.status is ReplicaStatus.PENDING:
            return self._admit(replica)
        if replica.status is ReplicaStatus.STAGING:
            return self._stage(replica)
        if replica.status is ReplicaStatus.STOPPING:
            return self._drain(replica)
        record = self._record(replica)
        if record is None or not self._launcher.alive(record):
            return self._died(replica)
        if replica.status is ReplicaStatus.READY:
            return self._watch(replica)
        return self._await_ready(replica, record)

    def _admit(self, replica: ReplicaRecord) -> float | None:
        now, words = self._context.now(), ""
        with self._context.db.write() as connection:
            wait = place(connection, self._room, replica.memory_bytes)
            if wait is None:
                self._rows.write(
                    connection,
                    replica,
                    status=ReplicaStatus.STAGING,
                    reason=Reason.NONE,
                    message="",
                    changed_at=now,
                )
            else:
                reason = _WAITS[wait.shortage]
                words = sentences(wait.message, reason.next_step(""))
                if words != replica.message:
                    self._rows.write(connection, replica, reason=reason, message=words)
                    self._context.event(connection, resource_of(replica), "Waiting", reason, words)
        if wait is None:
            return 0.0
        if now - self._asked_at(replica) > ADMISSION_TIMEOUT_S * 1e6:
            return self._fail(replica, Reason.ADMISSION_TIMEOUT, words)
        return _PENDING_POLL_S

    def _asked_at(self, replica: ReplicaRecord) -> int:
        """When it was last asked for: a change of the endpoint asks again for what waits."""
        with self._context.db.read() as connection:
            endpoint = rows.get_endpoint(connection, replica.endpoint_arn)
        return max(replica.created_at, endpoint.modified_at if endpoint else 0)

    def _stage(self, replica: ReplicaRecord) -> float | None:
        record = self._found(replica)
        if record is not None:
            # The control plane was killed between the start and the row: the process is ours.
            return self._launched(replica, record, replica.stages)
        with self._context.db.read() as connection:
            variant = variant_of(connection, replica)
            endpoint = rows.get_endpoint(connection, replica.endpoint_arn)
        if variant is None or endpoint is None:
            return None  # the endpoint is gone, and this row with it
        table = StageTable(self._context.clock, lambda stages: self._rows.note(replica, stages))
        limit = DownloadLimit(self._context.clock, variant.download_timeout_s, table)
        try:
            staged = self._stager.stage(
                variant, limit.report, lambda: not self._wanted(replica.id) or limit.passed()
            )
        except StagingCancelled:
            if limit.passed():
                cause = f"staging took longer than {variant.download_timeout_s:.0f} s."
                stages = table.close("failed")
                return self._fail(replica, Reason.DOWNLOAD_TIMEOUT, cause, stages=stages)
            return 0.0
        except StagingFailed as error:
            stages = table.close("failed")
            return self._fail(replica, error.reason, error.message, log=error.log, stages=stages)
        return self._start(replica, variant, endpoint, staged, table.close())

    def _start(
        self,
        replica: ReplicaRecord,
        variant: VariantSpec,
        endpoint: EndpointRecord,
        staged: Staged,
        stages: tuple[Stage, ...],
    ) -> float | None:
        if not self._wanted(replica.id):
            return 0.0
        with self._context.db.read() as connection:
            threads = thread_share(self._cores, replicas.wanted_count(connection))
        gpus = self._gpus.take(replica.id, gpus_of(variant.instance_type))
        try:
            self._launcher.remove(replica.id)
            if variant.warning:
                line = f"Warning: {variant.warning}"
                data_dir, now = self._context.data_dir, self._context.now()
                write_first_line(data_dir, endpoint.name, replica, now, line)
            port = self._launcher.free_port()
            identity = replica_identity(replica, variant, endpoint)
            order = launch_order(
                identity,
                variant,
                staged,
                region=self._context.settings.region,
                port=port,
                threads=threads,
                gpus=gpus,
                compile_cache=self._compile_cache,
            )
            record = self._launcher.start(order)
        except RidgelineError as error:
            cause = sentences(error.message, error.hint)
            return self._fail(replica, Reason.LAUNCH_FAILED, cause, stages=stages)
        return self._launched(replica, record, stages)

    def _launched(
        self, replica: ReplicaRecord, record: ProcessRecord, stages: tuple[Stage, ...]
    ) -> float | None:
        now = self._context.now()
        held = self._rows.change(
            replica,
            status=ReplicaStatus.STARTING,
            launched_at=now,
            changed_at=now,
            pid=record.pid,
            start_time=record.start_time,
            port=record.port,
            stages=stages,
        )
        if not held:
            # Another control plane has the row, or the row is gone; end what neither knows.
            with self._context.db.read() as connection:
                row = replicas.get_replica(connection, replica.id)
            if row is None or row.pid != record.pid:
                self._launcher.stop(record, 0)
            return None
        return _STARTING_POLL_S

    def _await_ready(self, replica: ReplicaRecord, record: ProcessRecord) -> float | None:
        identity = self._ask(replica)
        waited_s = (self._context.now() - (replica.launched_at or replica.changed_at)) / 1e6
        if identity is not None and identity.state == "failed":
            stages = joined(replica, identity, self._context.now())
            return self._broke(replica, Reason.LOAD_FAILED, identity.error, stages=stages)
        if identity is not None and identity.state == "ready":
            return self._ready(replica, identity, waited_s)
        variant = self._rows.variant(replica)
        limit = variant.startup_timeout_s if variant is not None else 0.0
        if waited_s > limit:
            found = (
                "nothing answered at its port" if identity is None else f"it is {identity.state}"
            )
            cause = f"{found} after {waited_s:.0f} s, of {limit:.0f} s allowed."
            return self._broke(replica, Reason.STARTUP_TIMEOUT, cause)
        if identity is not None:
            status = _BY_STATE.get(identity.state, replica.status)
            stages = joined(replica, identity, self._context.now())
            if status is not replica.status:
                self._rows.change(
                    replica, status=status, changed_at=self._context.now(), stages=stages
                )
        return _STARTING_POLL_S if waited_s < 30 else _SLOW_START_POLL_S

    def _ready(self, replica: ReplicaRecord, identity: Identity, waited_s: float) -> float:
        stages = joined(replica, identity, self._context.now())
        known = sum(stage.seconds for stage in identity.stages)
        health = Stage("health", "done", round(max(0.0, waited_s - known), 3))
        now = self._context.now()
        self._rows.ready(replica, now, identity.task, (*stages, health))
        return _READY_POLL_S

    def _watch(self, replica: ReplicaRecord) -> float | None:
        wrong = self._health.look(replica.id, lambda: self._ask(replica))
        return _READY_POLL_S if wrong is None else self._broke(replica, *wrong)

    def _ask(self, replica: ReplicaRecord) -> Identity | None:
        identity = self._probe(replica.port or 0, replica.token)
        if identity is None or identity.replica_id != replica.id:
            return None
        return identity

    def _end(self, replica: ReplicaRecord) -> float | None:
        """It is wanted no longer: drain it if it serves, else end it at once."""
        if replica.status is ReplicaStatus.STOPPING:
            return self._drain(replica)
        if replica.status in (ReplicaStatus.PENDING, ReplicaStatus.STAGING):
            record = self._found(replica)
            if record is not None:
                self._launcher.stop(record, 0)
            return self._stopped(replica)
        self._rows.change(replica, status=ReplicaStatus.STOPPING, changed_at=self._context.now())
        return 0.0

    def _drain(self, replica: ReplicaRecord) -> float | None:
        """Wait until no gateway knows the route any more and nothing is in flight."""
        record = self._record(replica)
        if record is not None and self._launcher.alive(record):
            waited_s = (self._context.now() - replica.changed_at) / 1e6
            if replica.ready_at is not None and waited_s < DRAIN_MAX_S:
                if waited_s < DRAIN_MIN_S:
                    return _DRAIN_POLL_S
                identity = self._ask(replica)
                if identity is not None and identity.in_flight:
                    return _DRAIN_POLL_S
            self._launcher.stop(record, GRACE_S if replica.ready_at is not None else 0)
        return self._stopped(replica)

    def _stopped(self, replica: ReplicaRecord, reason: Reason | None = None) -> float | None:
        """``reason`` None: the one for which it was asked to stop."""
        self._remove(replica)
        self._rows.change(
            replica,
            status=ReplicaStatus.STOPPED,
            reason=reason or replica.reason,
            changed_at=self._context.now(),
        )
        return None

    def _died(self, replica: ReplicaRecord) -> float | None:
        ended = self._launcher.exit_status(replica.id)
        if self._went_down_with_the_service(replica, ended):
            return self._stopped(replica, Reason.SERVICE_STOPPED)
        how = f"it {ended.words}." if ended is not None else "its process is gone."
        return self._broke(replica, Reason.PROCESS_DIED, how)

    def _went_down_with_the_service(self, replica: ReplicaRecord, ended: ExitStatus | None) -> bool:
        """It was told to stop, or all was killed at once, as by a machine without power: says
        nothing of the model. An end that nobody saw, of one that outlived an earlier control
        plane, cannot be told from that and passes for it."""
        told = asked_for_stop(self._context.data_dir.replicas / replica.id)
        before = (replica.launched_at or replica.changed_at) < self._began
        return told is Cause.INTERRUPTED or (ended is None and before)

    def _broke(
        self,
        replica: ReplicaRecord,
        reason: Reason,
        cause: str,
        *,
        stages: tuple[Stage, ...] | None = None,
    ) -> float | None:
        """Its server failed: the log tells more, and sometimes that it was memory."""
        log = self._rows.log_tail(replica)
        if is_out_of_memory(cause, log):
            variant = self._rows.variant(replica)
            if variant is not None:
                cause = f"it may use {in_gib(variant.memory_limit_bytes)}; {cause}"
            reason = Reason.OUT_OF_MEMORY
        return self._fail(replica, reason, cause, log=log, stages=stages)

    def _fail(
        self,
        replica: ReplicaRecord,
        reason: Reason,
        cause: str,
        *,
        log: Sequence[str] = (),
        stages: tuple[Stage, ...] | None = None,
    ) -> float | None:
        """Routes go first, then the process: nobody is sent to what is about to be killed."""
        now = self._context.now()
        held = self._rows.change(
            replica,
            status=ReplicaStatus.FAILED,
            reason=reason,
            message=failure_message(reason, cause, log),
            changed_at=now,
            stages=ended(replica.stages if stages is None else stages, now),
        )
        if held:
            self._remove(replica)
        return None

    def _remove(self, replica: ReplicaRecord) -> None:
        record = self._record(replica)
        if record is not None and self._launcher.alive(record):
            self._launcher.stop(record, 0)
        self._launcher.remove(replica.id)
        self._forget(replica)

    def _forget(self, replica: ReplicaRecord) -> None:
        self._health.forget(replica.id)
        self._gpus.give_back(replica.id)

    def _record(self, replica: ReplicaRecord) -> ProcessRecord | None:
        if replica.pid is None or replica.start_time is None or replica.port is None:
            return self._found(replica)
        return ProcessRecord(
            replica.id, replica.pid, replica.start_time, replica.token, replica.port
        )

    def _found(self, replica: ReplicaRecord) -> ProcessRecord | None:
        """Its process as the launcher knows it, where the row does not."""
        for record in self._launcher.records():
            if record.id == replica.id and record.token == replica.token:
                return record
        return None
