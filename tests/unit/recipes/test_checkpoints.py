"""Half a checkpoint is never gone on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline_recipes.checkpoints import fingerprint, newest_whole, seal
from ridgeline_recipes.failing import RecipeFailed
from ridgeline_recipes.job import job_of


def checkpoint(folder: Path, step: int) -> Path:
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    (made / "weights.safetensors").write_bytes(b"w" * 100)
    (made / "optimizer.pt").write_bytes(b"o" * 50)
    return made


def test_the_newest_by_number_is_taken(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        seal(checkpoint(tmp_path, step), "t")
    assert newest_whole(tmp_path, "t") == tmp_path / "checkpoint-100"


@pytest.mark.parametrize("harm", ["no seal", "short file", "missing file", "torn seal"])
def test_half_a_checkpoint_is_removed(tmp_path: Path, harm: str) -> None:
    seal(checkpoint(tmp_path, 5), "t")
    half = checkpoint(tmp_path, 10)
    if harm != "no seal":
        seal(half, "t")
    if harm == "short file":
        (half / "optimizer.pt").write_bytes(b"o")
    if harm == "missing file":
        (half / "optimizer.pt").unlink()
    if harm == "torn seal":
        (half / "sealed.json").write_text('{"training"')
    assert newest_whole(tmp_path, "t") == tmp_path / "checkpoint-5"
    assert not half.exists()


def test_nothing_whole_begins_at_the_beginning(tmp_path: Path) -> None:
    checkpoint(tmp_path, 5)
    assert newest_whole(tmp_path, "t") is None


def test_the_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    seal(checkpoint(tmp_path, 5), "another")
    with pytest.raises(RecipeFailed, match="step 5 comes from other data or hyperparameters"):
        newest_whole(tmp_path, "t")


def test_fingerprints_tell_data_settings_and_bases_apart(tmp_path: Path) -> None:
    job = job_of({"SM_CHANNEL_MODEL": str(tmp_path), "RIDGELINE_CHECKPOINTS": str(tmp_path)})
    (tmp_path / "model.safetensors").write_text("base")
    first = fingerprint(job, "sft", {"epochs": 1}, ["one"])
    assert first == fingerprint(job, "sft", {"epochs": 1}, ["one"])
    others = {
        fingerprint(job, "sft", {"epochs": 1}, ["two"]),
        fingerprint(job, "sft", {"epochs": 2}, ["one"]),
        fingerprint(job, "dpo", {"epochs": 1}, ["one"]),
    }
    (tmp_path / "model.safetensors").write_text("another")
    others.add(fingerprint(job, "sft", {"epochs": 1}, ["one"]))
    assert len(others | {first}) == 5
