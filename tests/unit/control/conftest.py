"""A control plane whose outside world is made of values: a launcher that keeps processes in a
dictionary, a stager that needs no disk, a clock that moves when told."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fake_runners import FakeRunners

from ridgeline.errors import NotReady
from ridgeline_service.control import ControlPlane, Outside
from ridgeline_service.control.endpoints.probe import Identity
from ridgeline_service.control.staging import Staged, StagingCancelled, StagingFailed
from ridgeline_service.paths import DataDir
from ridgeline_service.placement.machine import GIB, Machine
from ridgeline_service.runtime.images import runtime_named
from ridgeline_service.runtime.launcher import (
    ExitStatus,
    Launcher,
    ProcessRecord,
    ReplicaSpec,
    log_file,
)
from ridgeline_service.settings import Settings
from ridgeline_service.snapshot import EndpointRoute, Snapshot, read_snapshot
from ridgeline_service.store import Database, open_database
from ridgeline_service.store.records import Stage
from ridgeline_service.store.states import Reason
from ridgeline_service.training.runners import Runners

REGISTRY = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
PYTORCH = f"{REGISTRY}/pytorch-inference:2.6.0-cpu-py312"
LLM = f"{REGISTRY}/djl-inference:0.30.0-lmi12.0.0-cpu-full"


@dataclass
class FakeProcess:
    spec: ReplicaSpec
    record: ProcessRecord
    born: float
    alive: bool = True
    hung: bool = False
    lost: bool = False


@dataclass
class FakeLauncher(Launcher):
    """Processes live here, so they outlive a control plane that is thrown away."""

    clock: Callable[[], float]
    data_dir: DataDir
    processes: dict[str, FakeProcess] = field(default_factory=dict)
    started: int = 0

    def start(self, spec: ReplicaSpec) -> ProcessRecord:
        assert spec.replica_id not in self.processes, "started twice"
        self.started += 1
        record = ProcessRecord(
            spec.replica_id, 1000 + self.started, self.started, spec.token, spec.port
        )
        self.processes[spec.replica_id] = FakeProcess(spec, record, self.clock())
        if "SAYS" in spec.environment:
            path = log_file(self.data_dir, spec.log_group, spec.log_stream)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"t": 1, "m": spec.environment["SAYS"]}) + "\n")
        return record

    def records(self) -> list[ProcessRecord]:
        return [p.record for p in self.processes.values() if self.alive(p.record)]

    def alive(self, record: ProcessRecord) -> bool:
        process = self.processes.get(record.id)
        if process is None or process.record != record:
            return False
        dies = process.spec.environment.get("DIES_AFTER")
        if dies is not None and self.clock() - process.born >= float(dies):
            process.alive = False
        return process.alive

    def exit_status(self, replica_id: str) -> ExitStatus | None:
        process = self.processes.get(replica_id)
        return None if process is None or process.alive else ExitStatus(1, None, self.clock())

    def stop(self, record: ProcessRecord, grace_s: float) -> None:
        process = self.processes.get(record.id)
        if process is not None and process.record == record:
            process.alive = False

    def remove(self, replica_id: str) -> None:
        process = self.processes.get(replica_id)
        if process is not None and self.alive(process.record):
            raise NotReady(replica_id)
        self.processes.pop(replica_id, None)

    def free_port(self) -> int:
        return 20_000 + self.started


def data_is_gone(variant, report, cancelled):  # type: ignore[no-untyped-def]
    """What a world may stage by, in ``slow``: nothing is ever ready."""
    raise StagingFailed(Reason.MODEL_DATA_INVALID, "the data is gone")


@dataclass
class _Staging:
    """Stages as its world does, unless a test put something slower in place."""

    world: World

    def stage(self, variant, report, cancelled):  # type: ignore[no-untyped-def]
        return (self.world.slow or self.world.stage)(variant, report, cancelled)


@dataclass
class World:
    """A data directory, a clock, processes, and control planes that come and go."""

    root: Path
    settings: Settings = field(default_factory=Settings)
    now: float = 1_700_000_000.0
    load_s: float = 2.0
    memory_bytes: int = 64 * GIB
    sandbox_problem: str = ""
    cores: int = 2
    runners: Runners | None = None

    def __post_init__(self) -> None:
        self.data_dir = DataDir(self.root)
        self.launcher = FakeLauncher(lambda: self.now, self.data_dir)
        self.dead_holders: set[str] = set()
        self.numbers = itertools.count(1)
        self.databases: list[Database] = []
        self.staged: list[str] = []
        self.slow: Callable[..., Staged] | None = None
        self.plane, self.holder = self.new_plane()

    def new_plane(self) -> tuple[ControlPlane, str]:
        holder = f"plane-{next(self.numbers)}"
        database = open_database(self.settings, self.data_dir)
        self.databases.append(database)
        plane = ControlPlane(
            database,
            self.settings,
            self.data_dir,
            clock=lambda: self.now,
            ids=lambda: f"{next(self.numbers):012d}",
            tokens=lambda: f"token-{next(self.numbers)}",
            machine=Machine(self.memory_bytes, self.cores),
            outside=Outside(
                launcher=self.launcher,
                runners=self.runners,
                stager=_Staging(self),
                probe=self.probe,
                submit=lambda task: task(),
                holder=holder,
                holder_is_dead=self.dead_holders.__contains__,
                sandbox_problem=lambda: self.sandbox_problem,
            ),
        )
        plane.take_over()
        return plane, holder

    def kill_plane(self) -> None:
        """SIGKILL and a restart: nothing of the old one remains but rows, files and processes."""
        self.dead_holders.add(self.holder)
        self.plane, self.holder = self.new_plane()

    def close(self) -> None:
        for database in self.databases:
            database.close()

    def stage(self, variant, report, cancelled):  # type: ignore[no-untyped-def]
        report("download", 0, 10)
        self.staged.append(variant.name)
        if cancelled():
            raise StagingCancelled
        environment = dict(variant.container.environment)
        if "STAGING" in environment:
            words = environment.get("WORDS", "the data is not there")
            raise StagingFailed(Reason(environment["STAGING"]), words)
        python = Path("/usr/bin/python3")
        kind = runtime_named(variant.container.runtime).kind
        return Staged("fake", kind, python, (str(python),), environment, None)

    def probe(self, port: int, token: str) -> Identity | None:
        for process in self.launcher.processes.values():
            if process.record.token == token and process.record.port == port:
                return self._identity(process)
        return None

    def _identity(self, process: FakeProcess) -> Identity | None:
        if not self.launcher.alive(process.record) or process.hung:
            return None
        replica_id = process.spec.replica_id
        if process.spec.environment.get("PORT") == "closed":
            return None
        if self.now - process.born < self.load_s:
            stage = process.spec.environment.get("STAGE")
            running = (Stage(stage, seconds=self.now - process.born),) if stage else ()
            return Identity(replica_id, "loading", running)
        if process.spec.environment.get("LOAD") == "fails":
            return Identity(replica_id, "failed", error="the weights are torn")
        if process.lost:
            return Identity(replica_id, "failed", error="the core failed before")
        return Identity(replica_id, "ready", task="text-generation")

    # -- what tests do

    def model(self, name: str, **environment: str) -> None:
        self.plane.models.create(
            {
                "ModelName": name,
                "ExecutionRoleArn": self.settings.role_arn,
                "PrimaryContainer": {
                    "Image": PYTORCH,
                    "ModelDataUrl": "s3://bucket/model.tar.gz",
                    "Environment": environment,
                },
            }
        )

    def config(self, name: str, model: str, *, count: int = 1, **variant: object) -> None:
        self.plane.endpoint_configs.create(
            {
                "EndpointConfigName": name,
                "ProductionVariants": [
                    {
                        "VariantName": "A",
                        "ModelName": model,
                        "InitialInstanceCount": count,
                        "InstanceType": "ml.m5.large",
                        **variant,
                    }
                ],
            }
        )

    def endpoint(self, name: str, config: str) -> None:
        self.plane.endpoints.create({"EndpointName": name, "EndpointConfigName": config})

    def update(self, name: str, config: str) -> None:
        self.plane.endpoints.update({"EndpointName": name, "EndpointConfigName": config})

    def scale(self, name: str, **values: float) -> None:
        """``count`` and ``weight`` of the only variant."""
        names = {"count": "DesiredInstanceCount", "weight": "DesiredWeight"}
        wanted = {"VariantName": "A", **{names[name]: value for name, value in values.items()}}
        self.plane.endpoints.update_weights_and_capacities(
            {"EndpointName": name, "DesiredWeightsAndCapacities": [wanted]}
        )

    def deploy(self, name: str, *, count: int = 1, **environment: str) -> None:
        """A model, a config and an endpoint of one name, settled."""
        self.model(name, **environment)
        self.config(name, name, count=count)
        self.endpoint(name, name)
        self.settle()

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.plane.run_once()

    def settle(self, seconds: int = 900) -> None:
        """Let time pass until nothing has changed for a while."""
        quiet, end = 0.0, self.now + seconds
        while self.now < end:
            before, step = self.events(), 0.5 if quiet < 3 else 5.0
            self.tick(step)
            quiet = quiet + step if self.events() == before else 0.0
            if quiet >= 70:  # longer than the longest pause between two attempts
                return
        raise AssertionError(f"never settled: {self.plane.events.list(limit=20)}")

    def describe(self, name: str) -> dict:  # type: ignore[type-arg]
        return self.plane.endpoints.describe({"EndpointName": name})

    def status(self, name: str) -> str:
        return str(self.describe(name)["EndpointStatus"])

    def snapshot(self) -> Snapshot:
        return read_snapshot(self.data_dir.snapshot)

    def route(self, name: str) -> EndpointRoute:
        return self.snapshot().endpoints[name]

    def serving(self, name: str) -> list[str]:
        """Ids of the replicas that requests are routed to."""
        route = self.snapshot().endpoints.get(name)
        if route is None:
            return []
        return [replica.replica_id for v in route.variants for replica in v.replicas]

    def living(self) -> set[str]:
        return {record.id for record in self.launcher.records()}

    def events(self) -> int:
        found = self.plane.events.list(limit=1)
        return int(found[0]["id"]) if found else 0


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty data directory to copy: migrating anew costs more than a whole test."""
    root = tmp_path_factory.mktemp("migrated")
    open_database(Settings(), DataDir(root)).close()
    return root


@pytest.fixture
def make_world(
    migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(**values: object) -> World:
        root = tmp_path_factory.mktemp("world")
        shutil.copytree(migrated, root, dirs_exist_ok=True)
        worlds.append(World(root, **values))  # type: ignore[arg-type]
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
        shutil.rmtree(world.root, ignore_errors=True)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture
def runners() -> FakeRunners:
    return FakeRunners()


@pytest.fixture
def jobs(make_world: Callable[..., World], runners: FakeRunners) -> Callable[..., World]:
    """Makes worlds whose jobs run in ``runners``."""

    def make(**values: object) -> World:
        return make_world(runners=runners, **values)

    return make
