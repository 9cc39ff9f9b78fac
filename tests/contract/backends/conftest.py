"""Real models, prepared once into a cache below the repository root."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

CACHE = Path(__file__).parents[3] / ".cache" / "models"


@pytest.fixture(scope="session")
def prepared() -> Callable[[str], Path]:
    """The model directory of a card of the zoo."""

    def get(card: str) -> Path:
        folder = CACHE / card
        if not (folder / "config.json").is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "ridgeline_zoo.prepare", card, "--out", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return folder

    return get
