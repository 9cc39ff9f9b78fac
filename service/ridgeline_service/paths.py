"""Where things lie in a data directory. Knows names of files, nothing of what is in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataDir:
    """One data directory: everything of one service, and nothing outside it."""

    root: Path

    @classmethod
    def find(cls, explicit: str | os.PathLike[str] | None = None) -> DataDir:
        """The directory that was named, else ``$RIDGELINE_HOME``, else ``~/.ridgeline``."""
        chosen = explicit or os.environ.get("RIDGELINE_HOME") or Path.home() / ".ridgeline"
        return cls(Path(chosen).expanduser().resolve())

    @property
    def settings(self) -> Path:
        return self.root / "settings.json"

    @property
    def root_key(self) -> Path:
        """The key made at first start (mode 0600): access_key_id, secret_access_key, api_key."""
        return self.root / "root-key.json"

    @property
    def identity(self) -> Path:
        """An id that the directory keeps when it is moved."""
        return self.root / "id"

    @property
    def run(self) -> Path:
        """Sockets, pid records and the snapshot: what lives as long as the processes do."""
        return self.root / "run"

    @property
    def supervisor(self) -> Path:
        return self.run / "supervisor.json"

    @property
    def snapshot(self) -> Path:
        return self.run / "snapshot.json"

    @property
    def internal_key(self) -> Path:
        """Shared by gateway and control plane (mode 0600): who may speak for a caller."""
        return self.run / "internal-key"

    @property
    def database(self) -> Path:
        return self.root / "control" / "state.db"

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    @property
    def spool(self) -> Path:
        """Asynchronous requests that were accepted and not yet delivered."""
        return self.root / "spool"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def log_groups(self) -> Path:
        """CloudWatch log groups: ``<group, URL-quoted>/<stream, URL-quoted>.jsonl``."""
        return self.logs / "groups"

    @property
    def replicas(self) -> Path:
        """One folder a replica: its launch spec, its record and its scratch space."""
        return self.root / "replicas"

    @property
    def jobs(self) -> Path:
        """One folder an instance of a job: its order, its report, its record and its rooms."""
        return self.root / "jobs"

    @property
    def job_work(self) -> Path:
        """One folder a job that keeps something between its attempts."""
        return self.root / "job-work"

    @property
    def samples(self) -> Path:
        """CloudWatch's samples."""
        return self.root / "telemetry" / "samples.db"

    @property
    def cache(self) -> Path:
        """What can be made again: staged models, runtimes, overlays, wheels.

        ``RIDGELINE_CACHE`` moves it, so that several data directories share it.
        """
        moved = os.environ.get("RIDGELINE_CACHE")
        return Path(moved).expanduser().absolute() if moved else self.root / "cache"

    @property
    def proxy(self) -> Path:
        """The certificate authority and state of ``ridgeline env --proxy``."""
        return self.root / "proxy"


def place_of(folder: Path) -> str:
    """Its device and inode: which folder it is, under whatever name. A move within a file system
    keeps it, a copy has another."""
    found = folder.stat()
    return f"{found.st_dev}:{found.st_ino}"


def is_of(record: Mapping[str, object], folder: Path) -> bool:
    """Whether a record of processes that lies in ``folder`` was written there, and not in one that
    ``folder`` is a copy of. One without a ``place`` is taken for its own."""
    return record.get("place") in (None, place_of(folder))
