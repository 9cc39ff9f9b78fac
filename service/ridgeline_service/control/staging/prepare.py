"""Runs ``python -m ridgeline_zoo.prepare`` and follows it. A command of its own, because a download
and a conversion take memory and minutes that the control plane does not have."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ridgeline_service.control.children import child_lines, ending_with_parent
from ridgeline_service.control.staging.base import (
    Cancelled,
    Report,
    StagingCancelled,
    StagingFailed,
)
from ridgeline_service.endings import sentences
from ridgeline_service.paths import DataDir
from ridgeline_service.store.states import Reason

_RETRIED_CODES = frozenset({"SourceUnavailable", "Unavailable"})
_ERRORS_KEPT = 2000
_END_S = 1.0

_COMMAND = ending_with_parent("ridgeline_zoo.prepare")


@dataclass(frozen=True)
class PreparedFile:
    name: str
    size: int
    sha256: str


class Prepare:
    """``environment`` is the child's (HF_ENDPOINT, HF_TOKEN and proxies come that way)."""

    def __init__(self, data_dir: DataDir, environment: Mapping[str, str]) -> None:
        self._data_dir = data_dir
        self._environment = environment

    def run(
        self,
        card_id: str,
        out: Path,
        report: Report,
        cancelled: Cancelled,
        cards_dirs: Sequence[Path] = (),
    ) -> list[PreparedFile]:
        """Make ``out`` the model folder of a card. Raises StagingFailed, StagingCancelled."""
        report("download", 0, 0)
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, *_COMMAND, card_id, "--out", str(out)]
        command += ["--cache-dir", str(self._data_dir.cache / "zoo")]
        command += ["--pins", str(self._data_dir.root / "control" / "zoo-pins.json")]
        for folder in cards_dirs:
            command += ["--cards-dir", str(folder)]
        # A file takes whatever it says there; a pipe that nobody reads meanwhile would fill up.
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**self._environment, "RIDGELINE_HOME": str(self._data_dir.root)},
            ) as process,
        ):
            try:
                return self._follow(process, errors, card_id, report, cancelled)
            finally:
                if process.poll() is None:
                    process.kill()

    def _follow(
        self,
        process: subprocess.Popen[bytes],
        errors: IO[bytes],
        card_id: str,
        report: Report,
        cancelled: Cancelled,
    ) -> list[PreparedFile]:

        def check() -> None:
            if cancelled():
                raise StagingCancelled

        said = ""
        for line in child_lines(process, check):
            try:
                message: dict[str, Any] = json.loads(line)
            except ValueError:
                said = line.decode(errors="replace")
                continue
            if "stage" in message:
                report(message["stage"], message["done"], message["total"])
            elif "error" in message:
                raise _failed(message["error"])
            elif "result" in message:
                return [PreparedFile(**item) for item in message["result"]["files"]]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        errors.seek(0)
        stderr = errors.read().decode(errors="replace")
        raise StagingFailed(
            Reason.PREPARE_FAILED,
            f"Preparing {card_id} ended without an answer. {(stderr or said)[-_ERRORS_KEPT:]}",
        )


def _failed(error: Mapping[str, str]) -> StagingFailed:
    retried = error["code"] in _RETRIED_CODES
    message = sentences(error["message"], error.get("hint") or "")
    return StagingFailed(Reason.DOWNLOAD_FAILED if retried else Reason.PREPARE_FAILED, message)
