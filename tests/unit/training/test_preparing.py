"""Where a job's code is taken from."""

from __future__ import annotations

import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ridgeline_service.objects.reading import S3Reader
from ridgeline_service.placement import disk
from ridgeline_service.placement.disk import NoRoom
from ridgeline_service.runtime.environments import Environments
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.contract import TrainingContract
from ridgeline_service.training.layout import Layout
from ridgeline_service.training.order import Order
from ridgeline_service.training.preparing import Preparation
from ridgeline_service.training.sandboxing import Packages

IN_CHANNEL = "/opt/ml/input/data/code/sourcedir.tar.gz"


def archive(name: str, text: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as file:
        member = tarfile.TarInfo(name)
        member.size = len(text)
        file.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "ml")
    made.make(TrainingContract.folders)
    return made


def prepare(order: Order, layout: Layout, reader: S3Reader, submitted: str) -> tuple[str, ...]:
    values = {"sagemaker_program": "train.py", "sagemaker_submit_directory": submitted}
    job = replace(order, hyperparameters=values)
    preparation = Preparation(job, layout, reader, layout.root.parent, lambda: None)
    return preparation.command(Packages(python=Path("/usr/bin/python3"))).command


def test_with_network_isolation_the_code_comes_through_a_channel(
    order: Order, layout: Layout, reader: S3Reader
) -> None:
    channel = layout.channel("code")
    channel.mkdir(parents=True)
    (channel / "sourcedir.tar.gz").write_bytes(archive("train.py", "print(1)"))
    assert prepare(order, layout, reader, IN_CHANNEL) == ("python", "train.py")
    assert (layout.code / "train.py").read_text() == "print(1)"


@pytest.mark.parametrize("path", [IN_CHANNEL, "/opt/ml/input/data/nowhere/code.tar.gz"])
def test_code_that_no_channel_brought_is_named(
    order: Order, layout: Layout, reader: S3Reader, path: str
) -> None:
    with pytest.raises(JobFailed, match=path) as caught:
        prepare(order, layout, reader, path)
    assert caught.value.cause is Cause.CODE_INVALID


def test_a_path_out_of_the_channels_is_not_followed(
    order: Order, layout: Layout, reader: S3Reader
) -> None:
    (layout.root / "stolen.tar.gz").write_bytes(archive("train.py", "print(2)"))
    with pytest.raises(JobFailed, match=r"train\.py"):
        prepare(order, layout, reader, "/opt/ml/input/data/../../stolen.tar.gz")
    assert not (layout.code / "train.py").exists()


@pytest.mark.parametrize("submitted", ["s3://b/sourcedir.tar.gz", IN_CHANNEL])
def test_code_that_unpacks_to_more_than_is_free_is_stopped(
    order: Order,
    layout: Layout,
    reader: S3Reader,
    s3: Any,
    monkeypatch: pytest.MonkeyPatch,
    submitted: str,
) -> None:
    packed = archive("train.py", "#" * (4 << 20))
    s3.objects = {"sourcedir.tar.gz": packed}
    layout.channel("code").mkdir(parents=True)
    (layout.channel("code") / "sourcedir.tar.gz").write_bytes(packed)
    usage = shutil.disk_usage(layout.root)._replace(free=disk.RESERVE_BYTES + (1 << 19))
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(JobFailed, match=submitted) as caught:
        prepare(order, layout, reader, submitted)
    assert caught.value.cause is Cause.DISK_FULL


@pytest.mark.parametrize("step", ["ensure", "overlay"])
def test_packages_that_the_disk_has_no_room_for_are_a_full_disk(
    order: Order, layout: Layout, reader: S3Reader, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_args: object) -> None:
        raise NoRoom("The environment does not fit on the service's disk.")

    monkeypatch.setattr(Environments, step, full)
    preparation = Preparation(order, layout, reader, layout.root.parent, lambda: None)
    packages = Packages(python=Path("/usr/bin/python3"))
    (layout.code / "requirements.txt").write_text("six")
    begun = {"ensure": preparation.environment, "overlay": lambda: preparation.command(packages)}
    with pytest.raises(JobFailed, match="The environment does not fit") as caught:
        begun[step]()
    assert caught.value.cause is Cause.DISK_FULL


@pytest.mark.parametrize("entrypoint", [("/bin/sh", "-c", "pip install emoji"), ()])
def test_a_jobs_own_pip_has_the_machines_settings_and_sees_the_files_they_name(
    order: Order,
    layout: Layout,
    reader: S3Reader,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    entrypoint: tuple[str, ...],
) -> None:
    certificate = tmp_path / "authority.pem"
    certificate.touch()
    monkeypatch.setenv("PIP_CERT", str(certificate))
    (layout.code / "train").touch()
    for network, seen in ((True, True), (False, False)):
        confinement = replace(order.confinement, network=network)
        job = replace(order, entrypoint=entrypoint, confinement=confinement)
        preparation = Preparation(job, layout, reader, layout.root.parent, lambda: None)
        prepared = preparation.command(Packages(python=Path("/usr/bin/python3")))
        assert (prepared.pip.get("PIP_CERT") == str(certificate)) is seen
        assert (certificate in prepared.packages.read_only) is seen


def test_a_bucket_alone_holds_no_code(order: Order, layout: Layout, reader: S3Reader) -> None:
    with pytest.raises(JobFailed, match="'s3://b/' names no object") as caught:
        prepare(order, layout, reader, "s3://b/")
    assert caught.value.cause is Cause.CODE_INVALID
