"""GPU instance types on a machine that has GPUs: what replicas are given, and what they see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.control.endpoints import launching
from ridgeline_service.control.endpoints.launching import launch_order, replica_identity
from ridgeline_service.control.endpoints.planning import Planner
from ridgeline_service.control.staging import Staged
from ridgeline_service.errors import ValidationException
from ridgeline_service.placement.gpus import GpuShares, gpu_files, usable_gpus
from ridgeline_service.placement.machine import GIB, Machine
from ridgeline_service.placement.profiles import gpus_of, instance_type
from ridgeline_service.runtime import sandbox
from ridgeline_service.runtime.mounts import Mount
from ridgeline_service.runtime.sandbox import Sandbox
from ridgeline_service.settings import Settings
from ridgeline_zoo import Catalog

NO_CACHE: Mapping[str, str] = {}


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia-modeset"):
        (tmp_path / name).touch()
    return tmp_path


def test_gpus_count_where_torch_can_use_them(dev: Path, tmp_path_factory: pytest.TempPathFactory):
    assert usable_gpus(dev, "2.13.0") == 3
    assert usable_gpus(dev, "2.13.0+cpu") == 0
    assert usable_gpus(tmp_path_factory.mktemp("empty"), "2.13.0") == 0


def test_device_files_are_the_gpus_and_what_they_share(dev: Path):
    names = [path.name for path in gpu_files(dev)]
    assert names == ["nvidia0", "nvidia2", "nvidia10", "nvidiactl", "nvidia-uvm"]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("ml.g5.xlarge", 1),
        ("ml.g5.12xlarge", 4),
        ("ml.g6.48xlarge", 8),
        ("ml.p4d.24xlarge", 8),
        ("ml.p5.48xlarge", 8),
        ("ml.g6e.xlarge", 1),
        ("ml.m5.large", 0),
        ("ml.inf2.xlarge", 0),
        ("serverless", 0),
    ],
)
def test_types_have_gpus(name: str, count: int):
    assert gpus_of(name) == count


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=20), st.integers(1, 4))
def test_a_replica_gets_what_the_fewest_have(asked: list[tuple[int, int]], count: int):
    shares = GpuShares(count)
    held: dict[str, tuple[int, ...]] = {}
    for replica, wanted in asked:
        name = str(replica)
        if not wanted:
            shares.give_back(name)
            held.pop(name, None)
            continue
        held.pop(name, None)
        users = [sum(number in taken for taken in held.values()) for number in range(count)]
        held[name] = shares.take(name, wanted)
        assert len(held[name]) == len(set(held[name])) == min(wanted, count)
        others = [users[number] for number in range(count) if number not in held[name]]
        assert max(users[number] for number in held[name]) <= min(others, default=99)


class TestPlan:
    def warning(self, name: str, gpus: int, *, strict: bool = False) -> str:
        planner = Planner(
            Settings(strict_instance_types=strict),
            Machine(memory_bytes=64 * GIB, cores=8, gpus=gpus),
            lambda: Catalog([]),
            lambda: "",
        )
        return planner._check_accelerator("v", instance_type(name), "djl-inference:1")

    def test_a_type_whose_gpus_are_there_needs_no_warning(self):
        assert self.warning("ml.g5.xlarge", 1) == ""
        assert self.warning("ml.p5.48xlarge", 8, strict=True) == ""

    def test_fewer_gpus_than_the_type_has_are_told(self):
        told = self.warning("ml.g5.12xlarge", 1)
        assert told == (
            "ml.g5.12xlarge has 4 A10G 24 GB and this machine 1 GPUs - variant v runs on those"
        )

    def test_without_a_gpu_it_runs_on_the_cpu(self):
        assert "runs on the CPU" in self.warning("ml.g6.xlarge", 0)
        with pytest.raises(ValidationException):
            self.warning("ml.g6.xlarge", 0, strict=True)

    @pytest.mark.parametrize("name", ["ml.inf2.xlarge", "ml.trn1.2xlarge", "ml.trn2.48xlarge"])
    def test_neuron_types_are_simulated_and_say_so(self, name: str):
        assert f"{name} is simulated" in self.warning(name, 0)
        assert f"{name} is simulated" in self.warning(name, 0, strict=True)


class TestLaunch:
    def order(self, world, gpus: tuple[int, ...], cache=NO_CACHE, **environment: str):  # type: ignore[no-untyped-def]
        replica, variant, endpoint = world
        staged = Staged(
            kind="llm",
            runtime_name="llm",
            python=Path("/usr/bin/python3"),
            argv=("serve",),
            environment=environment,
            model_dir=None,
        )
        return launch_order(
            replica_identity(replica, variant, endpoint),
            variant,
            staged,
            region="us-east-1",
            port=1,
            threads=None,
            gpus=gpus,
            own_environment={},
            compile_cache=cache,
        )

    def test_gpus_bring_the_backend_their_numbers_and_their_files(self, monkeypatch, dev, records):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(launching, "gpu_files", lambda: gpu_files(dev))
        order = self.order(records, (1, 3))
        assert order.environment["RIDGELINE_BACKEND"] == "cuda"
        assert order.environment["CUDA_VISIBLE_DEVICES"] == "1,3"
        assert order.devices == gpu_files(dev)

    def test_simulated_devices_bring_a_compile_cache_unless_the_user_has_one(self, records):  # type: ignore[no-untyped-def]
        replica, variant, endpoint = records
        inf2 = SimpleNamespace(**{**vars(variant), "instance_type": "ml.inf2.xlarge"})
        neuron = replica, inf2, endpoint
        ours = {"NEURON_COMPILE_CACHE_URL": "s3://ours/cache", "AWS_SECRET_ACCESS_KEY": "ours"}
        assert ours.items() <= self.order(neuron, (), cache=ours).environment.items()
        assert not ours.keys() & self.order(records, (), cache=ours).environment.keys()
        for name in ours:
            own = self.order(neuron, (), cache=ours, **{name: "own"}).environment
            assert [own[one] for one in ours if one in own] == ["own"]

    def test_the_users_environment_has_the_last_word(self, records):  # type: ignore[no-untyped-def]
        order = self.order(records, (0,), RIDGELINE_BACKEND="cpu")
        assert order.environment["RIDGELINE_BACKEND"] == "cpu"

    def test_without_gpus_nothing_is_said_of_them(self, records):  # type: ignore[no-untyped-def]
        order = self.order(records, ())
        assert "RIDGELINE_BACKEND" not in order.environment
        assert "CUDA_VISIBLE_DEVICES" not in order.environment
        assert order.devices == ()

    def test_a_neuron_type_brings_the_simulated_backend_and_what_it_stands_for(self, records):  # type: ignore[no-untyped-def]
        records[1].instance_type = "ml.inf2.xlarge"
        order = self.order(records, ())
        assert order.environment["RIDGELINE_BACKEND"] == "neuron"
        assert order.environment["RIDGELINE_INSTANCE_TYPE"] == "ml.inf2.xlarge"


@pytest.fixture
def records():  # type: ignore[no-untyped-def]
    from types import SimpleNamespace

    container = SimpleNamespace(image="djl-inference:1")
    variant = SimpleNamespace(name="v", container=container, memory_limit_bytes=GIB)
    variant.instance_type = "ml.g5.xlarge"
    return SimpleNamespace(id="r", token="t"), variant, SimpleNamespace(name="e")


def test_a_sandbox_shows_device_files_after_the_usual_ones(tmp_path: Path, dev: Path):
    files = gpu_files(dev)
    box = Sandbox(python=Path("/usr/bin/python3"), scratch=tmp_path / "scratch", devices=files)
    mounts = sandbox.plan(box)
    usual = mounts.index(Mount("dev", "/dev"))
    for path in files:
        assert mounts.index(Mount("device", str(path), str(path))) > usual
    command = sandbox.wrap(("true",), box, "bubblewrap")
    assert command.words[command.words.index("--dev-bind") :][:3] == (
        "--dev-bind",
        str(files[0]),
        str(files[0]),
    )
    bare = Sandbox(python=Path("/usr/bin/python3"), scratch=tmp_path / "scratch")
    assert not [mount for mount in sandbox.plan(bare) if mount.kind == "device"]
