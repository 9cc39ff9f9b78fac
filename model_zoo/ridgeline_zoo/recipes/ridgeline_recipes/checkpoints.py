"""Which checkpoint training goes on from: the newest that is whole and belongs to this training.

A checkpoint is a folder that the trainer fills file by file, and that a job's runner copies away
while it is filled. A killed process leaves half of one, so each gets a seal when it is done, which
names its files with their sizes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from ridgeline_recipes.failing import RecipeFailed
from ridgeline_recipes.job import Job

_SEAL = "sealed.json"
_PREFIX = "checkpoint-"


def fingerprint(
    job: Job, recipe: str, options: Mapping[str, object], learned: Iterable[object]
) -> str:
    """What a checkpoint belongs to: the recipe, its settings, the records that are learned, and the
    base model. Empty where nobody keeps checkpoints: to read a large base takes a while."""
    if job.checkpoints is None:
        return ""
    digest = hashlib.sha256(json.dumps([recipe, options], sort_keys=True).encode())
    for record in learned:
        digest.update(f"{record!r}\n".encode())
    for path in sorted(job.model.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            digest.update(f"{path.name}\n".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def seal(checkpoint: Path, training: str) -> None:
    """Mark a checkpoint as whole."""
    sizes = {
        str(path.relative_to(checkpoint)): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != _SEAL
    }
    made = checkpoint / f".{_SEAL}"
    made.write_text(json.dumps({"training": training, "files": sizes}))
    os.replace(made, checkpoint / _SEAL)


def newest_whole(folder: Path, training: str) -> Path | None:
    """The checkpoint to go on from; None to begin at the beginning. Halves of checkpoints are
    removed, so that the trainer does not count them.

    Raises RecipeFailed for a checkpoint of another training.
    """
    found = sorted(_numbered(folder), reverse=True)
    for number, checkpoint in found:
        sealed = _sealed(checkpoint)
        if sealed is None:
            shutil.rmtree(checkpoint)
            continue
        if sealed != training:
            raise RecipeFailed(
                f"The checkpoint of step {number} comes from other data or hyperparameters, or "
                "from another base model. Give this job a CheckpointConfig with an S3Uri of its "
                "own, or the settings of then."
            )
        return checkpoint
    return None


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    found = []
    for path in folder.glob(f"{_PREFIX}*"):
        number = path.name.removeprefix(_PREFIX)
        if number.isdigit() and path.is_dir():
            found.append((int(number), path))
    return found


def _sealed(checkpoint: Path) -> str | None:
    """The training that a whole checkpoint belongs to; None for one that is not whole."""
    try:
        said = json.loads((checkpoint / _SEAL).read_text())
    except (OSError, ValueError):
        return None
    for name, size in said["files"].items():
        path = checkpoint / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    return str(said["training"])
