"""Files that commands write: what cannot be written is refused before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path

from ridgeline.errors import InvalidInput


def check_writable(path: Path, option: str) -> None:
    """Raises `InvalidInput` where no file can be written there. `option`: what named it."""
    folder = path.parent
    if path.is_dir():
        why = "it is a folder"
    elif not folder.is_dir():
        why = f"there is no folder {folder}"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        why = "it may not be written to"
    else:
        return
    raise InvalidInput(
        f"{option} {path} cannot be written: {why}.", hint="Name a file in a folder that is there."
    )
