"""Staging: what lies on disk when it is done, what is fetched only once, how it fails."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NamedTuple

import pytest
from botocore.exceptions import ClientError
from fake_s3 import Body
from staging_bench import Bench, archive, variant

from ridgeline_service.control.staging import StagingCancelled, StagingFailed
from ridgeline_service.placement import disk
from ridgeline_service.placement.disk import NoRoom
from ridgeline_service.settings import Settings
from ridgeline_service.store.states import Reason


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


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

    @pytest.mark.parametrize("uri", ["s3://bucket/", "s3://bucket"])
    @pytest.mark.parametrize("kind", ["archive", "object"])
    def test_a_bucket_alone_is_no_object(self, bench, uri, kind):
        with pytest.raises(StagingFailed, match=f"'{uri}' names no object") as caught:
            bench.stage(variant(uri, kind))
        assert not caught.value.reason.retried

    @pytest.mark.parametrize("keys", [["m/" + "a" * 256], ["m/a", "m/a/b"]])
    def test_keys_that_no_disk_can_hold_are_not_tried_again(self, bench, keys):
        for key in keys:
            bench.put(key, b"x")
        with pytest.raises(StagingFailed, match=keys[-1]) as caught:
            bench.stage(variant("s3://bucket/m/", "prefix"))
        assert caught.value.reason is Reason.MODEL_DATA_INVALID
        assert str(bench.root) not in caught.value.message

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


class Usage(NamedTuple):
    free: int


class TestFullDisk:
    @pytest.fixture(autouse=True)
    def _two_megabytes_are_free(self, bench, monkeypatch):
        def usage(_place: Path) -> Usage:
            files = [path for path in bench.root.rglob("*") if path.is_file()]
            used = sum(path.stat().st_size for path in files)
            return Usage(disk.RESERVE_BYTES + (2 << 20) - used)

        monkeypatch.setattr(disk.shutil, "disk_usage", usage)

    def refused(self, bench, chosen) -> StagingFailed:
        with pytest.raises(StagingFailed) as caught:
            bench.stage(chosen)
        assert caught.value.reason is Reason.DISK_FULL
        assert not caught.value.reason.retried
        left = [path for path in bench.root.rglob("*") if path.is_file()]
        assert all(path.name.endswith(".lock") for path in left), left
        return caught.value

    def test_a_small_archive_that_unpacks_to_more_than_is_free_is_stopped(self, bench):
        uri = bench.put("m.tar.gz", archive({"w": bytes(4 << 20)}))
        assert uri in self.refused(bench, variant(uri, "archive")).message

    @pytest.mark.parametrize(
        ("kind", "uri"),
        [
            ("archive", "s3://bucket/m/big"),
            ("object", "s3://bucket/m/big"),
            ("prefix", "s3://bucket/m/"),
        ],
    )
    def test_nothing_is_downloaded_that_does_not_fit(self, bench, kind, uri):
        bench.put("m/a", b"small")
        bench.put("m/big", bytes(2 << 20) + b"x")
        assert uri in self.refused(bench, variant(uri, kind)).message
        assert bench.s3.gets == []

    def test_neither_are_weights_of_the_zoo(self, bench, monkeypatch):
        chosen = variant(zoo_id="smollm2-135m-instruct")
        bench.stage(chosen)
        bench.stager = bench.new_machine()
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: Usage(disk.RESERVE_BYTES))
        with pytest.raises(StagingFailed, match="smollm2-135m-instruct") as caught:
            bench.stage(chosen)
        assert caught.value.reason is Reason.DISK_FULL
        assert [key for key in bench.s3.gets if "model/" in key] == []

    @pytest.mark.parametrize("step", ["ensure", "overlay"])
    def test_an_install_without_room_is_a_full_disk_and_no_fault_of_its_packages(
        self, bench, monkeypatch, step
    ):
        def full(*_args: object) -> None:
            raise NoRoom("The environment does not fit on the service's disk.")

        uri = bench.put("m.tar.gz", archive({"code/requirements.txt": b"six"}))
        monkeypatch.setattr(bench.environments, step, full)
        with pytest.raises(StagingFailed, match="The environment does not fit") as caught:
            bench.stage(variant(uri, "archive"))
        assert caught.value.reason is Reason.DISK_FULL

    def test_a_store_that_is_full_is_a_full_disk_too(self, bench, monkeypatch):
        def full(*_args: object) -> None:
            status = {"HTTPStatusCode": 507}
            refused = {"Error": {"Code": "InsufficientStorage"}, "ResponseMetadata": status}
            raise ClientError(refused, "PutObject")

        monkeypatch.setattr(bench.s3, "upload_fileobj", full)
        with pytest.raises(StagingFailed, match="InsufficientStorage") as caught:
            bench.stage(variant(zoo_id="smollm2-135m-instruct"))
        assert caught.value.reason is Reason.DISK_FULL

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_a_quota_is_named_as_well(self, bench, monkeypatch, number):
        def full(*_args: object, **_settings: object) -> None:
            raise OSError(number, "no room here")

        uri = bench.put("m.tar.gz", archive({"w": b"w"}))
        monkeypatch.setattr("ridgeline_service.control.staging.disk.extract_archive", full)
        assert "no room here" in self.refused(bench, variant(uri, "archive")).message
        monkeypatch.setattr(Body, "iter_chunks", full)
        assert "no room here" in self.refused(bench, variant(uri, "object")).message


class TestModelNamedInData:
    """LMI's archive of a serving.properties that says which model is to be served."""

    def stage(self, bench, files: dict[str, bytes], zoo_id: str = "", **environment: str):
        uri = bench.put("model.tar.gz", archive(files))
        chosen = variant(uri, "archive", zoo_id, "llm", **environment)
        folder = bench.stage(chosen).model_dir
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    def test_a_model_of_the_zoo_is_laid_beside_it(self, bench):
        properties = b"engine=Python\noption.model_id = smollm2-135m-instruct\n"
        adapter = {"adapters/a/adapter_config.json": b"{}", "config.json": b"mine"}
        assert self.stage(bench, {"serving.properties": properties, **adapter}) == {
            "config.json": b"{}",
            "model.safetensors": b"smollm2-135m-instruct",
            "serving.properties": properties,
            "adapters/a/adapter_config.json": b"{}",
        }

    def test_so_is_one_in_s3_or_under_its_id_on_the_hub(self, bench):
        bench.put("m/config.json", b"theirs")
        named = b"option.model_id=s3://bucket/m"
        found = self.stage(bench, {"serving.properties": named}, HF_MODEL_ID="org/other")
        assert found["config.json"] == b"theirs"
        named = b"option.model_id=HuggingFaceTB/SmolLM2-135M-Instruct"
        found = self.stage(bench, {"serving.properties": named})
        assert found["model.safetensors"] == b"smollm2-135m-instruct"

    def test_settings_alone_go_with_the_model_of_the_environment(self, bench):
        settings = {"serving.properties": b"option.dtype=fp32"}
        model = "smollm2-135m-instruct"
        found = self.stage(bench, settings, zoo_id=model, HF_MODEL_ID=model)
        assert set(found) == {"config.json", "model.safetensors", "serving.properties"}
        with pytest.raises(StagingFailed, match="org/unknown is no model of the zoo"):
            self.stage(bench, settings, HF_MODEL_ID="org/unknown")

    @pytest.mark.parametrize(
        "line",
        [b"option.model_id=/opt/ml/model", b"option.model_id=./sub", b"option.dtype=fp32"],
    )
    def test_a_model_that_lies_in_its_data_is_served_from_there(self, bench, line):
        files = {"serving.properties": line, "config.json": b"{}", "w": b"w"}
        assert self.stage(bench, files) == files
        assert self.stage(bench, files, HF_MODEL_ID="org/name") == files

    def test_a_name_that_means_nothing_is_told(self, bench):
        with pytest.raises(StagingFailed, match=r"'nonsense' is no .* option\.model_id") as caught:
            self.stage(bench, {"serving.properties": b"option.model_id=nonsense"})
        assert not caught.value.reason.retried


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
