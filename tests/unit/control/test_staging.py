"""Staging: what lies on disk when it is done, what is fetched only once, how it fails."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from ridgeline_service.control.endpoints.stages import StageTable
from ridgeline_service.control.jumpstart import JumpStartCatalogue
from ridgeline_service.control.staging import StagingCancelled, StagingFailed
from ridgeline_service.control.staging.cache import ModelCache
from ridgeline_service.control.staging.disk import DiskStager
from ridgeline_service.control.staging.hub import HubCards
from ridgeline_service.control.staging.prepare import Prepare, PreparedFile
from ridgeline_service.control.staging.s3 import ModelBucket
from ridgeline_service.control.staging.weights import ZooWeights
from ridgeline_service.paths import DataDir
from ridgeline_service.runtime.environments import Environment
from ridgeline_service.settings import Settings
from ridgeline_service.store.records import ContainerSpec, Stage, VariantSpec
from ridgeline_service.store.states import Reason
from ridgeline_zoo import load_cards
from ridgeline_zoo.hashes import sha256_of


def never() -> bool:
    return False


def silent(_stage: str, _done: int, _total: int) -> None:
    return None


class FakeS3:
    """The calls of a boto3 S3 client that staging makes, over a dictionary."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, bytes]] = {}
        self.gets: list[str] = []
        self.puts: list[str] = []
        self.away = False

    def _bucket(self, name: str, operation: str) -> dict[str, bytes]:
        if self.away:
            raise EndpointConnectionError(endpoint_url="http://store")
        if name not in self.buckets:
            raise refusal("NoSuchBucket", 404, operation)
        return self.buckets[name]

    def _object(self, bucket: str, key: str, operation: str) -> bytes:
        found = self._bucket(bucket, operation)
        if key not in found:
            raise refusal("NoSuchKey", 404, operation)
        return found[key]

    def head_object(self, *, Bucket: str, Key: str):
        return described(self._object(Bucket, Key, "HeadObject"))

    def get_object(self, *, Bucket: str, Key: str):
        body = self._object(Bucket, Key, "GetObject")
        self.gets.append(Key)
        return {"Body": Body(body)}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **_: str) -> None:
        self._bucket(Bucket, "PutObject")[Key] = Body
        self.puts.append(Key)

    def upload_file(self, path: str, bucket: str, key: str) -> None:
        self.put_object(Bucket=bucket, Key=key, Body=Path(path).read_bytes())

    def head_bucket(self, *, Bucket: str) -> None:
        self._bucket(Bucket, "HeadBucket")

    def create_bucket(self, *, Bucket: str, **_: object) -> None:
        self.buckets.setdefault(Bucket, {})

    def get_paginator(self, _name: str):
        return self

    def paginate(self, *, Bucket: str, Prefix: str):
        found = self._bucket(Bucket, "ListObjectsV2")
        for key in sorted(found):
            if key.startswith(Prefix):
                entry = described(found[key])
                yield {"Contents": [{"Key": key, "Size": len(found[key]), "ETag": entry["ETag"]}]}


class Body(io.BytesIO):
    def iter_chunks(self, size: int):
        while chunk := self.read(size):
            yield chunk


def described(body: bytes) -> dict[str, object]:
    import hashlib

    etag = hashlib.md5(body).hexdigest()
    return {"ContentLength": len(body), "ETag": f'"{etag}"'}


def refusal(code: str, status: int, operation: str) -> ClientError:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, operation)


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


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def variant(uri: str = "", kind: str = "", zoo_id: str = "", **environment: str) -> VariantSpec:
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
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return packed.getvalue()


class TestModelData:
    def test_an_archive_is_unpacked_once_and_shared(self, bench):
        uri = bench.put("model.tar.gz", archive({"code/inference.py": b"x = 1", "w.bin": b"w"}))
        first = bench.stage(variant(uri, "archive")).model_dir
        second = bench.stage(variant(uri, "archive")).model_dir
        assert first == second
        assert (first / "code/inference.py").read_bytes() == b"x = 1"
        assert bench.s3.gets == ["model.tar.gz"]

    def test_the_same_key_with_other_content_is_another_model(self, bench):
        uri = bench.put("model.tar.gz", archive({"w": b"one"}))
        old = bench.stage(variant(uri, "archive")).model_dir
        bench.put("model.tar.gz", archive({"w": b"two"}))
        new = bench.stage(variant(uri, "archive")).model_dir
        assert (old / "w").read_bytes() == b"one"
        assert (new / "w").read_bytes() == b"two"

    def test_staged_files_are_read_only(self, bench):
        uri = bench.put("m.tar.gz", archive({"w": b"one"}))
        staged = bench.stage(variant(uri, "archive")).model_dir / "w"
        assert staged.stat().st_mode & 0o222 == 0

    def test_a_prefix_keeps_its_folders(self, bench):
        bench.put("m/config.json", b"{}")
        uri = bench.put("m/sub/w.safetensors", b"w").removesuffix("/sub/w.safetensors")
        bench.put("m-other/w", b"not mine")
        staged = bench.stage(variant(uri, "prefix")).model_dir
        found = {str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file()}
        assert found == {"config.json", "sub/w.safetensors"}

    def test_an_s3_model_id_is_staged_like_model_data(self, bench):
        bench.put("m/config.json", b"{}")
        staged = bench.stage(variant(HF_MODEL_ID="s3://bucket/m/"))
        assert (staged.model_dir / "config.json").exists()

    def test_an_archive_that_leads_out_is_refused_and_leaves_nothing(self, bench):
        uri = bench.put("evil.tar.gz", archive({"../outside": b"x"}))
        with pytest.raises(StagingFailed) as caught:
            bench.stage(variant(uri, "archive"))
        assert caught.value.reason is Reason.MODEL_DATA_INVALID
        assert "outside" in caught.value.message
        left = [path for path in bench.root.rglob("*") if path.is_file()]
        assert all(path.name.endswith(".lock") for path in left), left

    def test_what_is_no_archive_is_named_by_its_uri_and_by_nothing_of_ours(self, bench):
        uri = bench.put("model.tar.gz", b"PyTorch\n" * 100)
        with pytest.raises(StagingFailed, match=uri) as caught:
            bench.stage(variant(uri, "archive"))
        assert caught.value.reason is Reason.MODEL_DATA_INVALID
        assert str(bench.root) not in caught.value.message
        assert "filling" not in caught.value.message

    @pytest.mark.parametrize(("kind", "key"), [("archive", "a.tar.gz"), ("prefix", "a/")])
    def test_absent_data_is_named_and_not_retried(self, bench, kind, key):
        with pytest.raises(StagingFailed, match="Could not find model data at s3://bucket/") as e:
            bench.stage(variant(f"s3://bucket/{key}", kind))
        assert not e.value.reason.retried

    def test_a_store_that_is_away_is_tried_again(self, bench):
        bench.s3.away = True
        with pytest.raises(StagingFailed) as caught:
            bench.stage(variant("s3://bucket/a.tar.gz", "archive"))
        assert caught.value.reason.retried

    def test_a_cancelled_download_stops_and_leaves_nothing_half_staged(self, bench):
        uri = bench.put("m.tar.gz", archive({"w": b"one"}))
        with pytest.raises(StagingCancelled):
            bench.stage(variant(uri, "archive"), cancelled=lambda: True)
        assert (bench.stage(variant(uri, "archive")).model_dir / "w").read_bytes() == b"one"

    def test_requirements_become_an_overlay(self, bench):
        uri = bench.put("m.tar.gz", archive({"code/requirements.txt": b"six"}))
        assert bench.stage(variant(uri, "archive")).overlays == (Path("/overlay"),)
        assert bench.environments.requirements == [b"six"]


class TestSubmittedCode:
    """SAGEMAKER_SUBMIT_DIRECTORY that names an archive in S3."""

    def stage(self, bench, **files: bytes):
        model = bench.put("m.tar.gz", archive({"w": b"one", "code/old.py": b"", "sub/v": b"two"}))
        code = {"inference.py": b"x = 1", "requirements.txt": b"six", **files}
        submitted = bench.put("sourcedir.tar.gz", archive(code))
        return bench.stage(
            variant(model, "archive", SAGEMAKER_SUBMIT_DIRECTORY=submitted, OTHER="kept")
        )

    def test_it_becomes_the_models_code(self, bench):
        staged = self.stage(bench)
        found = {
            str(path.relative_to(staged.model_dir)): path.read_bytes()
            for path in staged.model_dir.rglob("*")
            if path.is_file()
        }
        assert found == {
            "w": b"one",
            "sub/v": b"two",
            "code/inference.py": b"x = 1",
            "code/requirements.txt": b"six",
        }
        assert staged.environment == {
            "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
            "OTHER": "kept",
        }

    def test_its_requirements_are_installed(self, bench):
        assert self.stage(bench).overlays == (Path("/overlay"),)

    def test_other_code_beside_the_same_model_is_another_folder(self, bench):
        first, again, other = self.stage(bench), self.stage(bench), self.stage(bench, more=b"y")
        assert first.model_dir == again.model_dir != other.model_dir
        assert bench.s3.gets.count("m.tar.gz") == 1
        assert not (first.model_dir / "code" / "more").exists()

    def test_code_alone_will_do(self, bench):
        uri = bench.put("sourcedir.tar.gz", archive({"inference.py": b"x = 1"}))
        staged = bench.stage(variant(SAGEMAKER_SUBMIT_DIRECTORY=uri))
        assert (staged.model_dir / "code" / "inference.py").read_bytes() == b"x = 1"

    def test_an_archive_that_is_not_there_is_named(self, bench):
        with pytest.raises(StagingFailed, match=r"s3://bucket/gone\.tar\.gz"):
            bench.stage(variant(SAGEMAKER_SUBMIT_DIRECTORY="s3://bucket/gone.tar.gz"))


class TestZooWeights:
    def test_weights_are_prepared_once_for_all_machines(self, bench):
        chosen = variant(zoo_id="smollm2-135m-instruct")
        first = bench.stage(chosen).model_dir
        assert bench.prepare.runs == 1
        assert {path.name for path in first.iterdir()} == {"config.json", "model.safetensors"}
        gets = len(bench.s3.gets)
        bench.stage(chosen)
        assert [key for key in bench.s3.gets[gets:] if "model/" in key] == []
        bench.stager = bench.new_machine()
        second = bench.stage(chosen).model_dir
        assert bench.prepare.runs == 1
        assert (second / "model.safetensors").read_text() == "smollm2-135m-instruct"

    def test_they_lie_where_jumpstart_looks(self, bench):
        bench.stage(variant(zoo_id="smollm2-135m-instruct"))
        keys = set(bench.s3.buckets[Settings().zoo_bucket])
        prefix = "ridgeline/smollm2-135m-instruct/v1.0.0/"
        assert keys == {
            f"{prefix}model/config.json",
            f"{prefix}model/model.safetensors",
            f"{prefix}files.json",
        }

    def test_damaged_weights_are_refused(self, bench):
        chosen = variant(zoo_id="smollm2-135m-instruct")
        bench.stage(chosen)
        objects = bench.s3.buckets[Settings().zoo_bucket]
        key = next(key for key in objects if key.endswith("model.safetensors"))
        objects[key] = b"damaged"
        bench.stager = bench.new_machine()
        with pytest.raises(StagingFailed, match="has sha256"):
            bench.stage(chosen)

    def test_a_hub_that_cannot_be_reached_is_named(self, bench):
        with pytest.raises(StagingFailed, match="HF_ENDPOINT") as caught:
            bench.stage(variant(HF_MODEL_ID="org/unknown"))
        assert caught.value.reason.retried


class Hub(BaseHTTPRequestHandler):
    """A hub with one open and one gated model."""

    def do_GET(self) -> None:
        name = self.path.removesuffix("/resolve/main/config.json")
        status = {"/org/Tiny-Llama": 200, "/org/judge": 200, "/org/gated": 403}.get(name, 404)
        like = "all-minilm-l6-v2" if name == "/org/judge" else "tiny-llama-seeded"
        config = dict(next(card for card in load_cards() if card.id == like).config)
        if name == "/org/judge":
            config["architectures"] = ["BertForSequenceClassification"]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(config).encode())

    def log_message(self, *_: object) -> None:
        return None


class TestHub:
    @pytest.fixture
    def cards(self, tmp_path):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield HubCards(tmp_path, {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"})
        server.shutdown()
        server.server_close()
        thread.join()

    def test_a_model_without_a_card_gets_one_from_its_configuration(self, cards):
        card = cards.card("org/Tiny-Llama")
        assert (card.source, card.revision) == ("hf://org/Tiny-Llama", "main")
        assert card.parameters == 664704
        assert load_cards([cards.folder]).get(card.id) == card, "prepare finds it by its id"

    def test_a_cross_encoder_is_known_by_its_architecture(self, cards):
        card = cards.card("org/judge")
        assert (card.task, card.image, card.dtype) == ("text-ranking", "embedding", "fp32")

    @pytest.mark.parametrize(
        ("hub_id", "words"), [("org/gated", "set HF_TOKEN"), ("org/none", "no config.json")]
    )
    def test_refusals_are_named_and_not_retried(self, cards, hub_id, words):
        with pytest.raises(StagingFailed, match=words) as caught:
            cards.card(hub_id)
        assert not caught.value.reason.retried


class TestCache:
    def test_many_at_once_fill_it_once(self, tmp_path):
        cache, fills, found = ModelCache(tmp_path), [], []
        started = threading.Barrier(4)

        def fill(into: Path) -> None:
            fills.append(into)
            (into / "w").write_text("w")

        def get() -> None:
            started.wait()
            found.append(cache.get("name", fill, never))

        threads = [threading.Thread(target=get) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(fills) == 1
        assert set(found) == {tmp_path / "name"}

    def test_what_a_killed_filler_left_is_removed(self, tmp_path):
        (tmp_path / ".name.filling-abc").mkdir()
        ModelCache(tmp_path).get("name", lambda into: None, never)
        assert not list(tmp_path.glob(".name.filling-*"))

    def test_a_fill_that_fails_can_be_tried_again(self, tmp_path):
        def broken(_into: Path) -> None:
            raise OSError("no room")

        cache = ModelCache(tmp_path)
        with pytest.raises(OSError, match="no room"):
            cache.get("name", broken, never)
        assert not cache.has("name")
        assert cache.get("name", lambda into: None, never).is_dir()


class TestJumpStart:
    def test_the_catalogue_is_written_once_and_then_only_what_changed(self):
        s3 = FakeS3()
        catalogue = JumpStartCatalogue(Settings(), s3, load_cards)
        written = catalogue.publish()
        assert written == len(s3.puts) > 3
        assert catalogue.publish() == 0
        objects = s3.buckets[Settings().zoo_bucket]
        listed = json.loads(objects["models_manifest.json"])
        assert "smollm2-135m-instruct" in {item["model_id"] for item in listed}
        assert all(item["spec_key"] in objects for item in listed)
        objects["models_manifest.json"] = b"[]"
        assert catalogue.publish() == 1


class TestStageTable:
    def test_stages_follow_each_other_with_their_seconds(self):
        now, saved = [100.0], []
        table = StageTable(lambda: now[0], saved.append)
        table.report("download", 0, 10)
        now[0] += 2
        table.report("download", 5, 10)
        now[0] += 1
        table.report("prepare", 0, 0)
        now[0] += 4
        first, second = table.close()
        assert (first.name, first.state, first.seconds) == ("download", "done", 3.0)
        assert (first.progress, first.total) == (5, 10)
        assert (second.name, second.state, second.seconds) == ("prepare", "done", 4.0)

    def test_progress_is_not_written_more_than_twice_a_second(self):
        now, saved = [100.0], []
        table = StageTable(lambda: now[0], saved.append)
        for done in range(1000):
            now[0] += 0.001
            table.report("download", done, 1000)
        assert len(saved) <= 3
        assert all(isinstance(stage, Stage) for stage in saved[-1])


class TestPrepareCommand:
    def test_a_seeded_model_is_made_by_the_real_command(self, tmp_path):
        stages = []
        files = Prepare(DataDir(tmp_path), {}).run(
            "tiny-llama-seeded",
            tmp_path / "out",
            lambda stage, done, total: stages.append(stage),
            never,
        )
        names = {file.name for file in files}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
        assert stages[0] == "download"

    def test_an_unknown_card_fails_with_the_commands_words(self, tmp_path):
        with pytest.raises(StagingFailed, match="there is no model 'ghost'") as caught:
            Prepare(DataDir(tmp_path), {}).run("ghost", tmp_path / "out", silent, never)
        assert not caught.value.reason.retried

    def test_cancelling_ends_it(self, tmp_path):
        with pytest.raises(StagingCancelled):
            Prepare(DataDir(tmp_path), {}).run(
                "tiny-llama-seeded", tmp_path / "out", silent, lambda: True
            )
