"""Staged model directories on this machine: named by content, shared, read-only, never half there.

They lie in ``models`` under ``DataDir.cache``, beside ``environments`` and ``overlays``, and are
never removed. Whoever needs the room may delete the whole cache while the service is down: what is
wanted again is made again.

A directory appears by one rename when it is whole. One process fills a name at a time, the others
wait for it; a filler that was killed leaves only a scratch folder, which the next one removes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ridgeline_service.control.staging.base import Cancelled, StagingCancelled, StagingFailed
from ridgeline_service.placement.disk import NoRoom, full_disk_named
from ridgeline_service.store.states import Reason

_POLL_S = 0.2
_AGAIN = "tried-again"


class ModelCache:
    """``root`` may be shared by several services of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, name: str, fill: Callable[[Path], None], cancelled: Cancelled) -> Path:
        """The directory of that name; ``fill`` writes it into an empty folder if it is not there.

        Raises what ``fill`` raises, a full disk as StagingFailed, and StagingCancelled while
        waiting for another filler. What found no room is tried once more, while nothing else is:
        several that come at once take each other's room, and each of them may fit alone.
        """
        final = self._root / name
        if final.is_dir():
            return final
        with _full_disk_fails(), self.lock(name, cancelled):
            if final.is_dir():
                return final
            try:
                self._fill(name, final, fill)
            except StagingFailed as error:
                if error.reason is not Reason.DISK_FULL:
                    raise
                with self.lock(_AGAIN, cancelled):
                    self._fill(name, final, fill)
        return final

    def has(self, name: str) -> bool:
        return (self._root / name).is_dir()

    @contextmanager
    def lock(self, name: str, cancelled: Cancelled) -> Iterator[None]:
        """Held by one thread of one process at a time; the system drops it if that is killed."""
        self._root.mkdir(parents=True, exist_ok=True)
        pause = threading.Event()
        with (self._root / f".{name}.lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if cancelled():
                        raise StagingCancelled from None
                    pause.wait(_POLL_S)
            yield

    def _fill(self, name: str, final: Path, fill: Callable[[Path], None]) -> None:
        prefix = f".{name}.filling-"
        for leftover in self._root.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(dir=self._root, prefix=prefix))
        try:
            with _full_disk_fails():
                fill(scratch)
                _make_read_only(scratch)
            scratch.rename(final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _full_disk_fails() -> Iterator[None]:
    try:
        with full_disk_named("The model"):
            yield
    except NoRoom as error:
        raise StagingFailed(Reason.DISK_FULL, error.message) from error


def _make_read_only(folder: Path) -> None:
    folder.chmod(0o755)
    for parent, names, files in os.walk(folder):
        for name in names:
            os.chmod(os.path.join(parent, name), 0o755)  # noqa: S103 - a model is no secret
        for name in files:
            path = os.path.join(parent, name)
            executable = os.stat(path).st_mode & 0o100
            os.chmod(path, 0o555 if executable else 0o444)
