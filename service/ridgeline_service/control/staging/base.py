"""The seam between a replica's life and the work of staging it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ridgeline_service.runtime.images import Kind
from ridgeline_service.store.records import VariantSpec
from ridgeline_service.store.states import Reason

Report = Callable[[str, int, int], None]
"""Called with the name of the stage that runs, units done and units in all (0: not known)."""

Cancelled = Callable[[], bool]

ENVIRONMENT_STAGE = "environment"


@dataclass(frozen=True)
class Staged:
    """How to start the model server of a variant: everything in it lies on disk."""

    runtime_name: str
    kind: Kind
    python: Path
    argv: tuple[str, ...]
    environment: dict[str, str]
    model_dir: Path | None
    overlays: tuple[Path, ...] = ()
    read_only: tuple[Path, ...] = ()
    network: bool = True
    sandbox: bool = True


class StagingFailed(Exception):
    """It cannot be staged; the reason says whether trying again may help. ``log`` is what a
    command said that failed."""

    def __init__(self, reason: Reason, message: str, log: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.log = tuple(log)


class StagingCancelled(Exception):
    """Whoever asked wants it no longer."""


class Stager(Protocol):
    """The seam for tests."""

    def stage(self, variant: VariantSpec, report: Report, cancelled: Cancelled) -> Staged:
        """Blocks until all of it is on disk. Raises StagingFailed or StagingCancelled."""
        ...
