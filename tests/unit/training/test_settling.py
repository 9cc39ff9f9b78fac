"""What a script may still be writing is uploaded when it is whole, and not kept back for ever."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ridgeline_service.objects.reading import S3Failed, S3Reader
from ridgeline_service.training import settling
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.checkpoints import Checkpoints
from ridgeline_service.training.contract import TrainingContract
from ridgeline_service.training.failing import failure_reason
from ridgeline_service.training.layout import Layout


class Looks:
    """A folder of checkpoints that is looked at every two seconds of a clock that a test moves."""

    def __init__(self, root: Path, reader: S3Reader) -> None:
        layout = Layout(root)
        layout.make(TrainingContract.folders)
        self.now = 0.0
        self.kept = Checkpoints(
            reader, "s3://b/c", "/opt/ml/checkpoints", layout, clock=lambda: self.now
        )
        self.kept.restore(lambda count: None)
        self.folder = layout.root / "checkpoints"

    def look(self) -> int:
        self.now += 2
        return self.kept.sync()

    def replace(self, name: str, content: str) -> None:
        part = self.folder / f".{name}.part"
        part.write_text(content)
        part.rename(self.folder / name)


@pytest.fixture
def looks(tmp_path: Path, reader: S3Reader) -> Looks:
    return Looks(tmp_path / "ml", reader)


def test_a_file_that_is_replaced_before_every_look_is_uploaded(looks: Looks, s3: Any) -> None:
    for number in range(5):
        looks.replace("last", f"step {number}")
        looks.look()
    assert s3.objects["c/last"] == b"step 3"  # the one that stood there a look ago
    assert s3.uploads.count("c/last") >= 2
    looks.kept.finish()
    assert s3.objects["c/last"] == b"step 4"


def test_a_replacement_that_is_still_being_written_is_not(looks: Looks, s3: Any) -> None:
    looks.replace("last", "step 0")
    looks.look()
    looks.folder.joinpath("last").rename(looks.folder / "old")
    slow = looks.folder / "last"
    slow.write_text("ha")
    looks.look()
    slow.write_text("half")
    looks.look()
    assert "c/last" not in s3.objects
    looks.look()
    assert s3.objects["c/last"] == b"half"


def test_a_file_that_always_changes_is_uploaded_after_a_while(looks: Looks, s3: Any) -> None:
    lines = []
    with (looks.folder / "log").open("a") as file:
        for number in range(12):
            lines.append(f"line {number}\n")
            file.write(lines[-1])
            file.flush()
            looks.look()
    assert s3.uploads.count("c/log") == 1
    assert "".join(lines).startswith(s3.objects["c/log"].decode())
    assert looks.now / s3.uploads.count("c/log") > settling.MOST_WAIT_S


def test_what_is_written_at_a_disk_s_speed_is_not_taken_in_pieces(looks: Looks, s3: Any) -> None:
    path = looks.folder / "weights"
    path.touch()
    for step in range(1, 12):
        os.truncate(path, step * (60 << 20))  # a sparse file: 30 MB/s that take no disk
        looks.look()
    assert s3.uploads == []


def test_a_file_that_grows_under_the_reader_has_one_size(looks: Looks, tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"a" * (9 << 20))
    with path.open("rb") as file:
        content, state = settling.snapshot(file)
        with path.open("ab") as writer:
            writer.write(b"more")
        assert content.seek(0, os.SEEK_END) == state.size == 9 << 20
        content.seek(0)
        assert len(content.read()) == state.size
        content.seek(0)
        os.truncate(path, 5)
        with pytest.raises(settling.FileShrank):
            content.read()


def test_names_that_are_no_text_keep_nothing_else_away(looks: Looks, s3: Any) -> None:
    bad = os.fsencode(looks.folder) + b"/\xff.bin"
    Path(os.fsdecode(bad)).write_text("1")
    (looks.folder / "\u00e9").write_text("2")
    assert [looks.look(), looks.look()] == [0, 1]
    (looks.folder / "late").write_text("3")
    with pytest.raises(JobFailed, match="could not be uploaded") as failed:
        looks.kept.finish()
    assert s3.uploads == ["c/\u00e9", "c/late"]
    assert failed.value.cause is Cause.UPLOAD_FAILED
    reason = failure_reason(failed.value)
    assert reason.startswith(r"ClientError: Checkpoints could not be uploaded to s3://b/c/ as a wh")
    assert r"\xff.bin (its name is not UTF-8, and names in S3 are)" in reason
    os.unlink(bad)
    looks.kept.finish()  # what is gone by the end is no failure


def test_what_s3_refuses_of_one_file_keeps_nothing_else_away(
    looks: Looks, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upload(self: S3Reader, file: Any, uri: str, settings: Any = None) -> None:
        if uri.endswith("long"):
            raise S3Failed(uri, "KeyTooLongError", of_request=True)
        s3.uploads.append(uri)

    monkeypatch.setattr(S3Reader, "upload", upload)
    for name in ("a", "long", "z"):
        (looks.folder / name).touch()
    with pytest.raises(JobFailed, match=r"long \(KeyTooLongError\)"):
        looks.kept.finish()
    assert s3.uploads == ["s3://b/c/a", "s3://b/c/z"]


def test_no_failure_ends_the_looks(looks: Looks, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ridgeline_service.training import checkpoints

    monkeypatch.setattr(checkpoints, "EVERY_S", 0.001)
    looked = iter([ValueError("a bug"), OSError("a disk")])
    sync, done = looks.kept.sync, []

    def failing(*, final: bool = False) -> int:
        if (error := next(looked, None)) is not None:
            raise error
        done.append(final)
        return sync(final=final)

    monkeypatch.setattr(looks.kept, "sync", failing)
    looks.kept.start()
    while len(done) < 2:
        pass
    looks.kept.finish()
    assert done[-1] is True


def test_a_name_that_comes_again_is_a_new_file(looks: Looks, s3: Any) -> None:
    """As where each save writes one temporary name: an old look at it says nothing of this one."""
    part = looks.folder / "last.pt.part"
    part.write_text("first save")
    looks.look()
    part.rename(looks.folder / "last.pt")
    looks.look()
    looks.now += 300
    part.write_text("half of the sec")
    looks.look()
    assert "c/last.pt.part" not in s3.objects
    part.write_text("half of the second save")
    part.rename(looks.folder / "last.pt")
    looks.look()
    looks.look()
    assert s3.objects["c/last.pt"] == b"half of the second save"
    assert "c/last.pt.part" not in s3.objects
