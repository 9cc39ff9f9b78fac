"""Which objects an instance gets, and at which paths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_service.objects.reading import S3Object, S3Reader
from ridgeline_service.placement import disk
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.channels import (
    Wanted,
    check_paths,
    relative_path,
    share_of,
    stage,
)
from ridgeline_service.training.order import Channel


@pytest.mark.parametrize(
    ("prefix", "key", "path"),
    [
        ("data/", "data/a.csv", "a.csv"),
        ("data/", "data/sub/a.csv", "sub/a.csv"),
        ("data", "data/a.csv", "a.csv"),
        ("data/a.csv", "data/a.csv", "a.csv"),
        ("data/pa", "data/part0.csv", "part0.csv"),
        ("data", "database.csv", "database.csv"),
        ("", "a/b.csv", "a/b.csv"),
    ],
)
def test_paths_follow_the_prefix(prefix: str, key: str, path: str) -> None:
    assert relative_path(prefix, key) == path


def fetch(channel: Channel, reader: S3Reader, into: Path, host: int = 0, hosts: int = 1) -> int:
    return stage(channel, reader, into, host=host, hosts=hosts, took=lambda count: None)


def test_a_prefix_is_downloaded_with_its_folders(s3: Any, reader: S3Reader, tmp_path: Path) -> None:
    s3.objects = {"d/a": b"1", "d/sub/b": b"22", "other": b"3", "d/folder/": b""}
    assert fetch(Channel("train", "s3://b/d/"), reader, tmp_path / "t") == 3
    files = {p.relative_to(tmp_path / "t").as_posix() for p in (tmp_path / "t").rglob("*")}
    assert files == {"a", "sub", "sub/b"}


def test_a_manifest_names_its_objects(s3: Any, reader: S3Reader, tmp_path: Path) -> None:
    s3.objects = {"d/a": b"1", "d/x/b": b"22", "d/c": b"3"}
    s3.objects["m"] = json.dumps([{"prefix": "s3://b/d/"}, "a", "x/b"]).encode()
    channel = Channel("train", "s3://b/m", data_type="ManifestFile")
    assert fetch(channel, reader, tmp_path) == 3
    assert (tmp_path / "x" / "b").read_bytes() == b"22"
    for bad in (b"{", b"[]", b'[{"prefix": 1}]', b'[{"prefix": "s3://b/d/"}, 7]'):
        s3.objects["m"] = bad
        with pytest.raises(JobFailed, match="manifest"):
            fetch(channel, reader, tmp_path)
    s3.objects["m"] = b'[{"prefix": "s3://b/d/"}, "absent"]'
    with pytest.raises(JobFailed, match="s3://b/d/absent"):
        fetch(channel, reader, tmp_path)


def test_no_data_says_where_it_was_looked_for(reader: S3Reader, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="s3://b/nothing/") as caught:
        fetch(Channel("train", "s3://b/nothing/"), reader, tmp_path)
    assert caught.value.cause is Cause.DATA_INVALID


def wanted(*paths: str) -> list[Wanted]:
    return [Wanted("b", S3Object(path, 1, "e"), path) for path in paths]


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "a\0b"])
def test_no_key_leads_out_of_its_folder(path: str) -> None:
    with pytest.raises(JobFailed, match="leads out"):
        check_paths(wanted("fine", path), "Channel 'c'")


def test_a_file_cannot_be_a_folder() -> None:
    with pytest.raises(JobFailed, match="'a/b' is an object and a folder"):
        check_paths(wanted("a/b", "a/b/c"), "Channel 'c'")
    check_paths(wanted("a/b", "a/bc"), "Channel 'c'")


def test_no_object_takes_the_place_of_another(s3: Any, reader: S3Reader, tmp_path: Path) -> None:
    s3.objects = {"ov/part/part-1": b"FROM-FOLDER", "ov/part-1": b"FROM-NAME", "ov/part-2": b"2"}
    both = r"'ov/part-1' and 'ov/part/part-1' would both be the file 'part-1'.*end an S3Uri"
    with pytest.raises(JobFailed, match=both):
        fetch(Channel("train", "s3://b/ov/part"), reader, tmp_path / "a")
    assert fetch(Channel("train", "s3://b/ov/part/"), reader, tmp_path / "b") == 11
    assert fetch(Channel("train", "s3://b/ov/part-"), reader, tmp_path / "c") == 10
    with pytest.raises(JobFailed, match="would both be the file"):
        check_paths(wanted("a/b", "a//b"), "Channel 'c'")


def test_a_manifest_s_prefix_and_names_are_put_together(
    s3: Any, reader: S3Reader, tmp_path: Path
) -> None:
    s3.objects = {"mf/a.txt": b"1", "mf/x/b.txt": b"2"}
    s3.objects["m"] = json.dumps([{"prefix": "s3://b/mf"}, "/a.txt", "/x/b.txt"]).encode()
    fetch(Channel("train", "s3://b/m", data_type="ManifestFile"), reader, tmp_path / "t")
    assert (tmp_path / "t" / "a.txt").read_bytes() == b"1"
    assert (tmp_path / "t" / "x" / "b.txt").read_bytes() == b"2"


def test_a_manifest_nested_without_end_is_the_user_s_fault(
    s3: Any, reader: S3Reader, tmp_path: Path
) -> None:
    s3.objects = {"m": b"[" * 200_000}
    with pytest.raises(JobFailed, match=r"The manifest s3://b/m of channel 'train'") as caught:
        fetch(Channel("train", "s3://b/m", data_type="ManifestFile"), reader, tmp_path)
    assert caught.value.cause.blames == "ClientError"


@pytest.mark.parametrize("name", ["a" * 256, "é" * 128])
@pytest.mark.parametrize("key", ["d/{}", "d/{}/x"])
def test_a_key_with_a_name_longer_than_files_may_have_is_the_user_s_fault(
    s3: Any, reader: S3Reader, tmp_path: Path, key: str, name: str
) -> None:
    s3.objects = {key.format(name): b"1"}
    with pytest.raises(JobFailed, match=name) as caught:
        fetch(Channel("train", "s3://b/d/"), reader, tmp_path)
    assert caught.value.cause.blames == "ClientError"
    s3.objects = {"d/" + "a" * 255: b"1"}
    assert fetch(Channel("train", "s3://b/d/"), reader, tmp_path) == 1


def test_a_channel_larger_than_the_disk_is_not_downloaded(
    s3: Any, reader: S3Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=disk.RESERVE_BYTES + 1)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    s3.objects = {"d/a": b"1", "d/b": b"2"}
    with pytest.raises(JobFailed, match="Channel 'train' has") as caught:
        fetch(Channel("train", "s3://b/d/"), reader, tmp_path / "t")
    assert caught.value.cause is Cause.DISK_FULL
    assert not (tmp_path / "t").exists()


@settings(max_examples=50)
@given(st.integers(0, 30), st.integers(1, 7))
def test_shards_share_everything_once(count: int, hosts: int) -> None:
    items = wanted(*(f"{number:03}" for number in range(count)))
    sharded = Channel("c", "s3://b/d", distribution="ShardedByS3Key")
    shares = [share_of(items, sharded, host=host, hosts=hosts) for host in range(hosts)]
    assert sorted(each.path for share in shares for each in share) == [i.path for i in items]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert share_of(items, Channel("c", "s3://b/d"), host=0, hosts=hosts) == items


def test_a_stop_ends_a_download(s3: Any, reader: S3Reader, tmp_path: Path) -> None:
    s3.objects = {f"d/{number}": b"x" for number in range(20)}

    class Stopped(Exception):
        pass

    def took(count: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        stage(Channel("c", "s3://b/d/"), reader, tmp_path, host=0, hosts=1, took=took)
