"""What jobs fetch and write: archives that are none, buckets that are not there, places in requests
that name nothing."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ridgeline_service.control.command_jobs.archives import opened, unpack
from ridgeline_service.control.command_jobs.compiling import Compiling
from ridgeline_service.control.command_jobs.following import followed
from ridgeline_service.control.command_jobs.life import CommandCancelled, CommandFailed
from ridgeline_service.control.command_jobs.served_model import read_model
from ridgeline_service.objects.reading import S3Reader
from ridgeline_service.runtime.environments import Environments
from ridgeline_service.store.command_jobs import CommandJob, CommandKind
from ridgeline_service.store.states import Desired


def absent(code: str = "NoSuchKey") -> ClientError:
    status = {"HTTPStatusCode": 404}
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": status}, "Any")  # type: ignore[arg-type]


class Bucket:
    """An S3 client that knows one bucket, and what is in it."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = objects
        self.calls: list[str] = []

    def head_bucket(self, Bucket: str) -> None:
        self.calls.append(f"bucket {Bucket}")
        if Bucket != "b":
            raise absent("404")

    def head_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self.calls.append(f"head {Key}")
        return {"ContentLength": len(self._body(Key)), "ETag": "e"}

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self.calls.append(f"get {Key}")
        return {"Body": Body(self._body(Key))}

    def upload_fileobj(self, file: Any, bucket: str, key: str, Config: Any = None) -> None:
        raise absent("NoSuchBucket")

    def _body(self, key: str) -> bytes:
        if key not in self.objects:
            raise absent()
        return self.objects[key]


class Body(io.BytesIO):
    def iter_chunks(self, size: int) -> Iterator[bytes]:
        yield self.read()


def packed(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, body in files.items():
            member = tarfile.TarInfo(name.replace("_json", ".json"))
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return out.getvalue()


def job(output: str = "s3://b/out") -> CommandJob:
    return CommandJob(
        arn="a",
        name="c",
        kind=CommandKind.COMPILATION,
        id="i",
        created_at=0,
        modified_at=0,
        status="STARTING",
        failure_reason="",
        desired=Desired.RUNNING,
        request={
            "InputConfig": {"S3Uri": "s3://b/model", "Framework": "PYTORCH"},
            "OutputConfig": {"S3OutputLocation": output, "TargetDevice": "ml_inf2"},
        },
    )


def compiling(tmp_path: Path, store: Bucket) -> Compiling:
    return Compiling(tmp_path / "rooms", lambda: store, Environments(tmp_path), "us-east-1")


def never() -> bool:
    return False


def test_an_output_bucket_that_is_not_there_ends_the_job_before_anything_else(
    tmp_path: Path,
) -> None:
    store = Bucket(model=packed())
    with pytest.raises(CommandFailed, match=r"ClientError: There is no bucket 'nowhere'"):
        compiling(tmp_path, store)(job("s3://nowhere/out"), never)
    assert store.calls == ["bucket nowhere"]


def test_a_bucket_that_went_away_is_named_with_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"
    output.mkdir()
    made = {"target": "ml_inf2", "inputs": {}, "modules": []}
    monkeypatch.setattr(Compiling, "_compiled", lambda *_: (made, output))
    named = r"^ClientError: There is no bucket 'b' \(s3://b/out/model-ml_inf2"
    with pytest.raises(CommandFailed, match=named):
        compiling(tmp_path, Bucket(model=packed()))(job(), never)


def test_an_archive_that_is_none_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as failed:
        compiling(tmp_path, Bucket(model=b"<html>"))(job(), never)
    assert str(failed.value) == "ClientError: s3://b/model is no .tar.gz archive of a model."
    whole = packed(config_json=Random(0).randbytes(200_000).hex().encode())
    torn = whole[: len(whole) // 2]
    with pytest.raises(CommandFailed, match=r"cannot be unpacked: .*end-of-stream"):
        compiling(tmp_path, Bucket(model=torn))(job(), never)
    path = tmp_path / "garbled"
    path.write_bytes(whole)
    with (
        pytest.raises(CommandFailed, match=r"s3://b/g cannot be unpacked: invalid block\.$"),
        opened(path, "s3://b/g", "a model"),
    ):
        raise zlib.error("invalid block")


def test_unpacking_ends_when_nobody_waits_any_longer(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(packed(a=b"1", b=b"2"))

    def stop() -> None:
        raise CommandCancelled

    with pytest.raises(CommandCancelled):
        unpack(archive, tmp_path / "into", "s3://b/a", "a model", stop)


def test_a_model_whose_files_cannot_be_read_is_the_users_fault() -> None:
    def said(**objects: bytes) -> str:
        with pytest.raises(CommandFailed) as failed:
            read_model(S3Reader(Bucket(**objects)), f"s3://b/{next(iter(objects))}", lambda: None)
        return str(failed.value)

    assert said(**{"m.tar.gz": b"none"}) == (
        "ClientError: s3://b/m.tar.gz is no .tar.gz archive of a model."
    )
    listed = packed(config_json=b"[1]")
    assert said(**{"m.tar.gz": listed}) == (
        "ClientError: the config.json of s3://b/m.tar.gz must hold a JSON object."
    )
    assert "config.json of s3://b/m.tar.gz is no JSON" in said(
        **{"m.tar.gz": packed(config_json=b"\xff{")}
    )


@pytest.mark.parametrize(
    ("prints", "reason"),
    [
        ("print('null'); print(3); raise KeyError('x')", "exit status 1. KeyError: 'x'"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
    ],
)
def test_a_command_that_breaks_off_leaves_its_last_line(
    prints: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    command = [sys.executable, "-c", prints]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
        pytest.raises(CommandFailed) as failed,
    ):
        followed(process, never)
    assert str(failed.value).startswith("InternalServerError: the command ended")
    assert reason in str(failed.value)
    assert "Traceback" not in str(failed.value)
    if "KeyError" in prints:
        assert "Traceback" in caplog.text


def test_a_result_among_lines_of_others_is_found() -> None:
    line = json.dumps({"result": {"x": 1}})
    with subprocess.Popen(
        [sys.executable, "-c", f"print('[]'); print('words'); print({line!r})"],
        stdout=subprocess.PIPE,
    ) as process:
        assert followed(process, never) == {"x": 1}
