"""The control plane in one value: its verbs, its reconcilers, their start and stop."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from ridgeline_service.control.alarms import Alarms, AlarmWatcher
from ridgeline_service.control.command_jobs.advising import Advising
from ridgeline_service.control.command_jobs.compilation import CompilationJobs
from ridgeline_service.control.command_jobs.compiling import Compiling
from ridgeline_service.control.command_jobs.life import CommandLife, Work
from ridgeline_service.control.command_jobs.recommendations import RecommendationsJobs
from ridgeline_service.control.context import Context
from ridgeline_service.control.driver import Driver, Holder, Subject
from ridgeline_service.control.endpoints.configs import EndpointConfigs
from ridgeline_service.control.endpoints.launching import compile_cache
from ridgeline_service.control.endpoints.life import EndpointLife
from ridgeline_service.control.endpoints.planning import Planner
from ridgeline_service.control.endpoints.probe import Probe, probe_replica
from ridgeline_service.control.endpoints.replica_life import ReplicaLife
from ridgeline_service.control.endpoints.replica_usage import SAMPLED_EVERY_S, ReplicaUsage
from ridgeline_service.control.endpoints.simulated import SimulatedDevices
from ridgeline_service.control.endpoints.verbs import Endpoints
from ridgeline_service.control.events import Events
from ridgeline_service.control.holder import boot_id, holder_name, is_dead
from ridgeline_service.control.jobs.inputs import JobInputs, ZooInputs
from ridgeline_service.control.jobs.life import JobLife
from ridgeline_service.control.jobs.planning import JobPlanner
from ridgeline_service.control.jobs.pool_life import PoolLife
from ridgeline_service.control.jobs.processing import ProcessingJobs
from ridgeline_service.control.jobs.queue import JobQueue
from ridgeline_service.control.jobs.surroundings import Surroundings
from ridgeline_service.control.jobs.training import TrainingJobs
from ridgeline_service.control.jobs.transform import TransformJobs
from ridgeline_service.control.jumpstart import JumpStartCatalogue
from ridgeline_service.control.keys import Keys
from ridgeline_service.control.loop import Loop
from ridgeline_service.control.models import Models
from ridgeline_service.control.names import Clock, Ids, random_id, system_clock
from ridgeline_service.control.publisher import Publisher
from ridgeline_service.control.scaling import (
    SCALED_EVERY_S,
    Scaler,
    Scaling,
    ScheduledActions,
)
from ridgeline_service.control.sessions import Sessions
from ridgeline_service.control.staging import Stager
from ridgeline_service.control.staging.cache import ModelCache
from ridgeline_service.control.staging.disk import DiskStager
from ridgeline_service.control.staging.hub import HubCards
from ridgeline_service.control.staging.prepare import Prepare
from ridgeline_service.control.staging.s3 import ModelBucket
from ridgeline_service.control.staging.weights import ZooWeights
from ridgeline_service.control.tags import Tags
from ridgeline_service.control.tuning.jobs import TuningJobs
from ridgeline_service.control.tuning.life import TuningLife
from ridgeline_service.control.workers import Workers
from ridgeline_service.control.zoo import Zoo
from ridgeline_service.paths import DataDir
from ridgeline_service.placement.admission import Room
from ridgeline_service.placement.gpus import GpuShares
from ridgeline_service.placement.machine import Machine, this_machine
from ridgeline_service.runtime import sandbox
from ridgeline_service.runtime.environments import Environments
from ridgeline_service.runtime.launcher import Launcher, ProcessLauncher
from ridgeline_service.security.keys import RootKey, ensure_root_key
from ridgeline_service.settings import Settings
from ridgeline_service.snapshot import Credential
from ridgeline_service.store import Database, command_jobs, replicas, tuning_jobs, warm_pools
from ridgeline_service.store import jobs as job_rows
from ridgeline_service.store.command_jobs import CommandJob, CommandKind
from ridgeline_service.store.outage import log_failure
from ridgeline_service.telemetry.samples import SampleStore
from ridgeline_service.training.runners import ProcessRunners, Runners, Store
from ridgeline_zoo import Catalog, load_cards

_STOP_WAIT_S = 5.0

log = logging.getLogger(__name__)


def _sandbox_problem() -> str:
    found = sandbox.capability()
    return "" if found.tool is not None else found.summary


def _store(settings: Settings, store_url: str, root: RootKey) -> Store:
    """The object store that is configured, else the embedded one with the service's own key."""
    if settings.s3_endpoint:
        key = Credential(settings.s3_access_key_id, settings.s3_secret_access_key)
        return Store(settings.s3_endpoint, key)
    return Store(store_url, Credential(root.access_key_id, root.secret_access_key))


@dataclass(frozen=True)
class Outside:
    """What touches the world. Each has a working default; tests put their own in its place."""

    launcher: Launcher | None = None
    runners: Runners | None = None
    job_inputs: JobInputs | None = None
    stager: Stager | None = None
    probe: Probe = probe_replica
    submit: Callable[[Callable[[], None]], None] | None = None
    holder: str = ""
    holder_is_dead: Callable[[str], bool] = is_dead
    sandbox_problem: Callable[[], str] = _sandbox_problem


class ControlPlane:
    """Verbs are synchronous and thread-safe. ``start`` runs the reconcilers until ``stop``."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        data_dir: DataDir,
        *,
        store_url: str = "",
        clock: Clock = system_clock,
        ids: Ids = random_id,
        tokens: Callable[[], str] = secrets.token_urlsafe,
        machine: Machine | None = None,
        cards: Callable[[], Catalog] | None = None,
        outside: Outside | None = None,
    ) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._cards = cards or cache(load_cards)
        self._root_key = ensure_root_key(data_dir)
        self._machine = machine or this_machine()
        self._room = Room(settings.max_instances, self._machine.memory_bytes)
        self._store = _store(settings, store_url, self._root_key)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        context = Context(db, settings, data_dir, clock, ids, self._changed)
        self._publisher = Publisher(context, self._root_key)
        self._client = cache(self._make_client)
        samples = SampleStore(data_dir.samples)
        self._usage = ReplicaUsage(context, samples)
        outside = outside or Outside()
        self._loop = self._make_loop(context, tokens, outside)
        planner = Planner(settings, self._machine, self._cards, outside.sandbox_problem)
        self._watcher = AlarmWatcher(context, samples)
        self._scaler = Scaler(context, planner, samples, self._room)
        self.models = Models(context)
        self.endpoint_configs = EndpointConfigs(context)
        self.endpoints = Endpoints(context, planner)
        self.simulated = SimulatedDevices(context)
        job_planner = JobPlanner(settings, self._machine, outside.sandbox_problem)
        self.training_jobs = TrainingJobs(context, job_planner)
        self.processing_jobs = ProcessingJobs(context, job_planner)
        self.transform_jobs = TransformJobs(context, planner)
        self.tuning_jobs = TuningJobs(context, job_planner)
        self.compilation_jobs = CompilationJobs(context)
        self.recommendations_jobs = RecommendationsJobs(context)
        self.tags = Tags(context)
        self.scaling = Scaling(context)
        self.alarms = Alarms(context)
        self.scheduled_actions = ScheduledActions(context)
        self.zoo = Zoo(settings, self._cards)
        self.keys = Keys(context)
        self.sessions = Sessions(context, self._root_key)
        self.events = Events(context)

    def start(self) -> None:
        """Take over what is there, then reconcile on threads of its own."""
        self.take_over()
        self._spawn("reconciler", self._loop.run)
        self._repeat(SAMPLED_EVERY_S, self._usage.sample, "what replicas use was not sampled")
        self._repeat(SCALED_EVERY_S, self.scale_once, "endpoints were not scaled")
        if self._store.url:
            self._spawn("jumpstart", self._publish_catalogue)

    def take_over(self) -> None:
        """Publish the snapshot, adopt the replicas that live, end those that no row knows."""
        self._publisher.start()
        self._loop.adopt()

    def run_once(self) -> float:
        """One round of the reconcilers; ``start`` repeats it. Returns how long nothing is due."""
        return self._loop.tick()

    def scale_once(self) -> None:
        """One look at the alarms, and then of the scaler, which so never acts on a state from
        before a restart; ``start`` repeats it."""
        self._watcher.step()
        self._scaler.step()

    def stop(self) -> None:
        """End the loop and give the claims back. Replicas run on."""
        self._stopping.set()
        self._loop.stop()
        for thread in self._threads:
            thread.join(_STOP_WAIT_S)
        self._loop.release()

    def _changed(self) -> None:
        self._publisher.publish()
        self._wake.set()

    def _spawn(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _repeat(self, every_s: float, look: Callable[[], None], failure: str) -> None:
        """On a thread, until ``stop``; nothing may end it."""

        def run() -> None:
            while not self._stopping.wait(every_s):
                try:
                    look()
                except Exception as error:  # noqa: BLE001 - see above
                    log_failure(log, error, failure)

        self._spawn(look.__name__, run)

    def _publish_catalogue(self) -> None:
        JumpStartCatalogue(self._settings, self._client(), self._cards).run(self._stopping)

    def _make_loop(self, context: Context, tokens: Callable[[], str], outside: Outside) -> Loop:
        holder = Holder(outside.holder or holder_name(), outside.holder_is_dead)
        launcher = outside.launcher or ProcessLauncher(self._data_dir)
        runners = outside.runners or ProcessRunners(self._data_dir, self._store)
        room = self._room
        gpus = GpuShares(self._machine.gpus)
        stager = outside.stager or self._make_stager()
        life = ReplicaLife(
            context,
            holder=holder.name,
            launcher=launcher,
            stager=stager,
            probe=outside.probe,
            room=room,
            cores=self._machine.cores,
            gpus=gpus,
            compile_cache=compile_cache(self._store, self._settings),
            wanted=lambda replica_id: self._loop.wanted(replica_id),
            changed=self._changed,
        )
        job_life = JobLife(
            context,
            holder=holder.name,
            boot=boot_id(),
            runners=runners,
            inputs=outside.job_inputs or self._make_job_inputs(),
            stager=stager,
            room=room,
            around=Surroundings(self._data_dir, self._settings, self._machine.cores),
            gpus=gpus,
            tokens=tokens,
            changed=self._changed,
            hurry=lambda arn: job_driver.hurry(arn),
        )
        submit = outside.submit or Workers(2 * self._settings.max_instances + 8).submit
        replica_rows = Subject(
            claims=replicas.CLAIMS,
            living=replicas.living_replicas,
            key=lambda replica: replica.id,
            seen=lambda replica: (replica.status, replica.desired),
            step=life.step,
        )
        jobs = Subject(
            claims=job_rows.CLAIMS,
            living=job_rows.living_jobs,
            key=lambda job: job.arn,
            seen=lambda job: (job.phase, job.desired, job.attempt),
            step=job_life.step,
        )
        tuning_life = TuningLife(
            context,
            holder=holder.name,
            planner=JobPlanner(self._settings, self._machine, outside.sandbox_problem),
            samples=SampleStore(self._data_dir.samples),
        )
        tunings = Subject(
            claims=tuning_jobs.CLAIMS,
            living=tuning_jobs.living_tunings,
            key=lambda tuning: tuning.arn,
            seen=lambda tuning: (tuning.desired, tuning.cause),
            step=tuning_life.step,
        )
        pool_life = PoolLife(
            context,
            runners=runners,
            room=room,
            tokens=tokens,
        )
        pools = Subject(
            claims=warm_pools.CLAIMS,
            living=warm_pools.living_pools,
            key=lambda pool: pool.job_arn,
            seen=lambda pool: (pool.status, pool.keep_alive_s, pool.job_ended),
            step=pool_life.step,
        )
        commands = self._commands(context, holder.name)
        job_driver = Driver(context, jobs, holder, submit=submit, wake=self._wake)
        return Loop(
            context,
            endpoints=EndpointLife(context, tokens),
            replica_driver=Driver(context, replica_rows, holder, submit=submit, wake=self._wake),
            job_queue=JobQueue(context, room),
            job_driver=job_driver,
            tuning_driver=Driver(context, tunings, holder, submit=submit, wake=self._wake),
            command_driver=Driver(context, commands, holder, submit=submit, wake=self._wake),
            pool_driver=Driver(context, pools, holder, submit=submit, wake=self._wake),
            launcher=launcher,
            runners=runners,
            submit=submit,
            publish=self._publisher.publish,
            wake=self._wake,
        )

    def _commands(self, context: Context, holder: str) -> Subject[CommandJob]:
        client = self._client
        compiling = Compiling(
            self._data_dir.cache / "compilation",
            client,
            Environments(self._data_dir.cache),
            self._settings.region,
        )
        work: dict[CommandKind, Work] = {
            CommandKind.COMPILATION: compiling,
            CommandKind.RECOMMENDATIONS: Advising(context, client),
        }
        return Subject(
            claims=command_jobs.CLAIMS,
            living=command_jobs.living_command_jobs,
            key=lambda job: job.arn,
            seen=lambda job: job.desired,
            step=CommandLife(context, holder=holder, work=work).step,
        )

    def _make_stager(self) -> Stager:
        cache_dir = self._data_dir.cache
        return DiskStager(
            bucket=ModelBucket(_Lazy(self._client)),
            cache=ModelCache(cache_dir / "models"),
            weights=self._make_weights(),
            hub=HubCards(cache_dir / "hub-cards", os.environ),
            environments=Environments(cache_dir),
            cards=self._cards,
        )

    def _make_weights(self) -> ZooWeights:
        client, models = _Lazy(self._client), ModelCache(self._data_dir.cache / "models")
        prepare = Prepare(self._data_dir, os.environ)
        return ZooWeights(self._settings, self._data_dir, client, models, prepare)

    def _make_job_inputs(self) -> JobInputs:
        client = _Lazy(self._client)
        return ZooInputs(self._settings, client, self._cards, self._make_weights())

    def _make_client(self) -> Any:
        # Inner: its module loads boto3, a part of this process's start.
        from ridgeline_service.objects.boto import make_client

        return make_client(self._store.url, self._store.credential, self._settings.region)


class _Lazy:
    """A boto3 client that is made at its first call: making one costs 0.1 s of the start."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        return getattr(self._make(), name)
