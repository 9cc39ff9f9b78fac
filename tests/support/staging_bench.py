"""A stager over fakes: what lies on disk when it is done, and what it asked for."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

from fake_s3 import FakeS3

from ridgeline_service.control.staging.cache import ModelCache
from ridgeline_service.control.staging.disk import DiskStager
from ridgeline_service.control.staging.hub import HubCards
from ridgeline_service.control.staging.prepare import Prepare, PreparedFile
from ridgeline_service.control.staging.s3 import ModelBucket
from ridgeline_service.control.staging.weights import ZooWeights
from ridgeline_service.paths import DataDir
from ridgeline_service.runtime.environments import Environment
from ridgeline_service.settings import Settings
from ridgeline_service.store.records import ContainerSpec, VariantSpec
from ridgeline_zoo import load_cards
from ridgeline_zoo.hashes import sha256_of


def never() -> bool:
    return False


def silent(_stage: str, _done: int, _total: int) -> None:
    return None


class FakePrepare(Prepare):
    """Writes two files instead of running the command."""

    def __init__(self, data_dir: DataDir) -> None:
        super().__init__(data_dir, {})
        self.runs = 0

    def run(self, card_id, out, report, cancelled, cards_dirs=()):
        self.runs += 1
        report("download", 1, 1)
        out.mkdir(parents=True)
        (out / "config.json").write_text("{}")
        (out / "model.safetensors").write_text(card_id)
        (out / ".ridgeline-prepared.json").write_text("{}")
        return [
            PreparedFile(name, (out / name).stat().st_size, sha256_of(out / name))
            for name in ("config.json", "model.safetensors")
        ]


class FakeEnvironments:
    def __init__(self) -> None:
        self.requirements: list[bytes] = []

    def ensure(self, runtime, on_progress):
        return Environment(Path("/usr/bin/python3"), (), ("/usr/bin/python3", "server"))

    def overlay(self, runtime, requirements, on_progress):
        self.requirements.append(requirements)
        return Path("/overlay")


class Bench:
    """A stager over fakes, and a second machine's cache on demand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.s3 = FakeS3()
        self.s3.buckets["bucket"] = {}
        self.prepare = FakePrepare(DataDir(root))
        self.environments = FakeEnvironments()
        self.machines = 0
        self.stager = self.new_machine()

    def new_machine(self) -> DiskStager:
        self.machines += 1
        data_dir = DataDir(self.root / f"machine-{self.machines}")
        cache = ModelCache(data_dir.cache / "models")
        weights = ZooWeights(Settings(), data_dir, self.s3, cache, self.prepare)
        return DiskStager(
            bucket=ModelBucket(self.s3),
            cache=cache,
            weights=weights,
            hub=HubCards(data_dir.cache / "hub", {"HF_ENDPOINT": "http://127.0.0.1:1"}),
            environments=self.environments,  # type: ignore[arg-type]
            cards=load_cards,
        )

    def stage(self, variant: VariantSpec, report=silent, cancelled=never):
        return self.stager.stage(variant, report, cancelled)

    def put(self, key: str, body: bytes) -> str:
        self.s3.buckets["bucket"][key] = body
        return f"s3://bucket/{key}"


def variant(
    uri: str = "", kind: str = "", zoo_id: str = "", runtime: str = "", **environment: str
) -> VariantSpec:
    if not runtime:
        runtime = "llm" if zoo_id or "HF_MODEL_ID" in environment else "pytorch-inference"
    return VariantSpec(
        name="A",
        model_name="m",
        weight=1.0,
        count=1,
        deployed_count=1,
        instance_type="ml.m5.large",
        memory_bytes=1,
        memory_limit_bytes=1,
        startup_timeout_s=60.0,
        download_timeout_s=60.0,
        container=ContainerSpec("image", runtime, environment, uri, kind),
        zoo_id=zoo_id,
    )


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    # The same bytes whatever the time.
    return gzip.compress(packed.getvalue(), mtime=0)
