"""What user code wrote is read without following a link out of its room."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ridgeline_service.objects.reading import S3Reader
from ridgeline_service.training.artifacts import Artifacts, is_empty
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.checkpoints import Checkpoints
from ridgeline_service.training.contract import TrainingContract
from ridgeline_service.training.layout import Layout
from ridgeline_service.training.walking import files_below, opened_below


def below(root: Path, folder: str) -> list[str]:
    with opened_below(root, folder) as handle:
        return [found.path for found in files_below(handle)] if handle is not None else []


def test_files_and_links_are_found_and_nothing_behind_a_link(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("k")
    root = tmp_path / "ml"
    (root / "model" / "sub").mkdir(parents=True)
    (root / "model" / "sub" / "weights").write_text("w")
    (root / "model" / "to-folder").symlink_to(secret)
    (root / "model" / "to-file").symlink_to(secret / "key")
    os.mkfifo(root / "model" / "pipe")
    assert below(root, "model") == ["to-file", "to-folder", "sub/weights"]
    (root / "whole").symlink_to(secret)
    assert below(root, "whole") == []
    assert below(root, "absent") == []


def test_an_archive_of_a_folder_that_became_a_link_is_empty(
    tmp_path: Path, s3: Any, reader: S3Reader
) -> None:
    root = tmp_path / "ml"
    layout = Layout(root)
    layout.make(TrainingContract.folders)
    (layout.model / "a").write_text("1")
    artifacts = Artifacts(reader, "s3://b/out/", tmp_path)
    assert artifacts.upload(root, "model", "model", compress=True) == "s3://b/out/model.tar.gz"
    packed = tmp_path / "packed"
    packed.write_bytes(s3.objects["out/model.tar.gz"])
    with tarfile.open(packed) as archive:
        assert archive.getnames() == ["a"]
    artifacts.upload(root, "model", "model", compress=False)
    assert s3.objects["out/model/a"] == b"1"
    assert is_empty(root, "output/data")
    (layout.model / "a").unlink()
    layout.model.rmdir()
    layout.model.symlink_to(tmp_path)
    assert is_empty(root, "model")


def test_empty_folders_are_in_the_archive(tmp_path: Path, s3: Any, reader: S3Reader) -> None:
    layout = Layout(tmp_path / "ml")
    layout.make(TrainingContract.folders)
    (layout.model / "variables" / "assets").mkdir(parents=True)
    (layout.model / "full").mkdir()
    (layout.model / "full" / "a").write_text("1")
    Artifacts(reader, "s3://b/out/", tmp_path).upload(layout.root, "model", "model", compress=True)
    with tarfile.open(fileobj=io.BytesIO(s3.objects["out/model.tar.gz"])) as archive:
        found = {member.name: member.isdir() for member in archive}
    assert found == {"full/a": False, "variables/assets": True}
    assert is_empty(layout.root, "model/variables")


def test_a_file_whose_name_is_no_text_is_named_when_the_others_are_there(
    tmp_path: Path, s3: Any, reader: S3Reader
) -> None:
    layout = Layout(tmp_path / "ml")
    layout.make(TrainingContract.folders)
    Path(os.fsdecode(os.fsencode(layout.model) + b"/caf\xe9.csv")).write_text("1")
    (layout.model / "good.csv").write_text("2")
    artifacts = Artifacts(reader, "s3://b/out/", tmp_path)
    artifacts.upload(layout.root, "model", "model", compress=False)
    assert s3.objects == {"out/model/good.csv": b"2"}
    with pytest.raises(JobFailed, match=r"caf\\xe9\.csv \(its name is not UTF-8") as failed:
        artifacts.complete()
    assert failed.value.cause is Cause.UPLOAD_FAILED
    Artifacts(reader, "s3://b/out/", tmp_path).upload(layout.root, "model", "m", compress=True)


def test_links_are_followed_through_links_inside(tmp_path: Path, s3: Any, reader: S3Reader) -> None:
    layout = Layout(tmp_path / "ml")
    layout.make(("model", "runs/v1"))
    (layout.root / "runs" / "v1" / "w").write_text("1")
    (layout.root / "runs" / "latest").symlink_to("v1")
    (layout.root / "runs" / "newest").symlink_to("/opt/ml/runs/latest")
    (layout.model / "w").symlink_to("../runs/latest/w")
    (layout.model / "folder").symlink_to("../runs/newest")
    (layout.model / "far").symlink_to("../../../opt/ml/runs/newest/w")
    artifacts = Artifacts(reader, "s3://b/out", tmp_path)
    artifacts.upload(layout.root, "model", "model", compress=False)
    assert s3.objects == {f"out/model/{each}": b"1" for each in ("w", "folder/w", "far")}
    artifacts.complete()


@pytest.mark.parametrize("link", ["self", "../../etc/hosts", "/etc/hosts", "/opt/mlx", "..", "out"])
def test_links_that_lead_out_or_round_are_not_followed(
    link: str, tmp_path: Path, s3: Any, reader: S3Reader
) -> None:
    layout = Layout(tmp_path / "ml")
    layout.make(("model",))
    (layout.root / "out").symlink_to(tmp_path)
    (layout.model / "self").symlink_to(link)
    (layout.model / "out").symlink_to("../out/order.json")
    artifacts = Artifacts(reader, "s3://b/out", tmp_path)
    artifacts.upload(layout.root, "model", "model", compress=False)
    assert s3.objects == {}
    with pytest.raises(JobFailed, match="where no file of the job is"):
        artifacts.complete()


def test_a_link_becomes_what_it_leads_to_inside(tmp_path: Path, s3: Any, reader: S3Reader) -> None:
    layout = Layout(tmp_path / "ml")
    layout.make(("processing/out/sub", "processing/w/inner", "processing/w/more"))
    out, work = layout.root / "processing" / "out", layout.root / "processing" / "w"
    (work / "f").write_text("1")
    (work / "inner" / "g").write_text("2")
    (work / "inner" / "round").symlink_to(out)
    (work / "more" / "h").write_text("3")
    (layout.root / "top").write_text("4")
    (out / "link").symlink_to("../w/f")
    (out / "sub" / "absolute").symlink_to("/opt/ml/processing/w/f")
    (out / "folder").symlink_to("/opt/ml/processing/w/inner")
    (out / "top").symlink_to("/opt/ml/top")
    artifacts = Artifacts(reader, "s3://b/out", tmp_path)
    artifacts.upload_files(layout.root, "processing/out")
    assert s3.objects == {
        "out/link": b"1",
        "out/sub/absolute": b"1",
        "out/folder/g": b"2",
        "out/top": b"4",
    }
    with pytest.raises(JobFailed, match=r"folder/round \(a link in a folder that is linked"):
        artifacts.complete()


@pytest.mark.parametrize("to", ["{secret}", "../../../secret", "absent", ".", "..", "/etc/hosts"])
def test_a_link_that_leads_to_nothing_of_the_job_is_named(
    tmp_path: Path, s3: Any, reader: S3Reader, to: str
) -> None:
    layout = Layout(tmp_path / "ml")
    layout.make(("processing/out",))
    (tmp_path / "secret").write_text("s")
    (layout.root / "processing" / "out" / "kept").write_text("k")
    link = layout.root / "processing" / "out" / "link"
    link.symlink_to(to.format(secret=tmp_path / "secret"))
    artifacts = Artifacts(reader, "s3://b/out", tmp_path)
    artifacts.upload_files(layout.root, "processing/out")
    assert s3.objects == {"out/kept": b"k"}
    with pytest.raises(JobFailed, match=r"link \(a link to .*, where no file of the job is"):
        artifacts.complete()


def test_a_failure_file_is_read_and_a_link_in_its_place_is_not(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "ml")
    layout.make(TrainingContract.folders)
    assert layout.failure() == ""
    (layout.root / "output" / "failure").write_text(" row 7 is bad \n")
    assert layout.failure() == "row 7 is bad"
    (tmp_path / "key").write_text("secret")
    (layout.root / "output" / "failure").unlink()
    (layout.root / "output" / "failure").symlink_to(tmp_path / "key")
    assert layout.failure() == ""


def test_checkpoints_go_up_when_they_are_settled_and_come_back(
    tmp_path: Path, s3: Any, reader: S3Reader
) -> None:
    layout = Layout(tmp_path / "ml")
    layout.make(TrainingContract.folders)
    s3.objects["c/old"] = b"0"
    kept = Checkpoints(reader, "s3://b/c/", "/opt/ml/checkpoints", layout)
    assert kept.restore(lambda count: None) == 1
    folder = layout.root / "checkpoints"
    assert (folder / "old").read_bytes() == b"0"
    (folder / "new").write_text("1")
    assert [kept.sync(), kept.sync(), kept.sync()] == [0, 1, 0]
    (folder / "new").write_text("22")
    (folder / "last").write_text("3")
    kept.finish()
    assert (s3.objects["c/new"], s3.objects["c/last"]) == (b"22", b"3")
    assert s3.uploads == ["c/new", "c/last", "c/new"]
    again = Layout(tmp_path / "again")
    again.make(TrainingContract.folders)
    Checkpoints(reader, "s3://b/c", "/opt/ml/checkpoints", again).restore(lambda count: None)
    assert sorted(os.listdir(again.root / "checkpoints")) == ["last", "new", "old"]
