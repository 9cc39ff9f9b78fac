"""The folder of the model that is measured: a card, prepared once, or a folder given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from peers.base import REPOSITORY

CACHE = REPOSITORY / ".cache"


def prepared_model(name: str) -> Path:
    """``name`` itself if it is a folder, else the card's folder under .cache/bench."""
    if Path(name).is_dir():
        return Path(name)
    folder = CACHE / "bench" / name
    command = [sys.executable, "-m", "ridgeline_zoo.prepare", name, "--out", str(folder)]
    command += ["--cache-dir", str(CACHE / "tests" / "zoo")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder
