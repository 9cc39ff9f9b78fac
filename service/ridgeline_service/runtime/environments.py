"""The Python environments of runtimes, and the overlays that users' requirements.txt become.

An environment is a virtual environment of its own, named by what is in it (requirements, Python
version, machine), built once under a lock, visible only when its ``.ready`` marker is there. An
overlay is a directory of further packages that goes in front on PYTHONPATH, named by the runtime
and the requirements, put in place by one rename. A builder that was killed leaves nothing that
anybody would use; one that failed leaves nothing. It knows no endpoint and starts no server.

Packages of a runtime come as wheels only, so that no build script runs with the service's rights.
A user's requirements may need building; therefore pip itself runs in the sandbox for them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from ridgeline.errors import Unsupported
from ridgeline_service.files import write_atomic
from ridgeline_service.placement.disk import check_reserve, full_disk_named
from ridgeline_service.runtime import pip, sandbox
from ridgeline_service.runtime.images import Runtime
from ridgeline_service.runtime.mounts import Mount
from ridgeline_service.runtime.pip import Progress
from ridgeline_service.runtime.shim import Command

_OVERLAY = "/opt/overlay"
_ASKED_FOR = "What requirements.txt asks for"
_NOT_CONSTRAINED = frozenset({"pip", "setuptools", "wheel"})
_OURS = ("ridgeline", "ridgeline_service", "ridgeline_backends", "ridgeline_zoo")
_FRAMEWORK_SERVER = Path(__file__).parents[1] / "serving" / "framework" / "server.py"


@dataclass(frozen=True)
class Environment:
    """How to start a runtime: ``argv`` is its model server's command line (a job brings its own, so
    there it is the interpreter), ``site_dirs`` further directories that must be visible to it
    (``ReplicaSpec.read_only``)."""

    python: Path
    site_dirs: tuple[Path, ...]
    argv: tuple[str, ...]


def no_progress(line: str) -> None:
    """Progress for callers that show none."""


class Environments:
    """Environments and overlays under one cache directory, which several services may share."""

    def __init__(
        self, cache_dir: Path, require_sandbox: Callable[[], sandbox.Tool] = sandbox.require
    ) -> None:
        self._environments = cache_dir / "environments"
        self._overlays = cache_dir / "overlays"
        self._require_sandbox = require_sandbox

    def ensure(self, runtime: Runtime, on_progress: Progress = no_progress) -> Environment:
        """The environment of ``runtime``; the first call builds it, which takes minutes.

        ``on_progress`` gets pip's lines. Raises InstallFailed with pip's last lines, and NoRoom.
        """
        if runtime.kind == "llm":
            python = Path(sys.executable)
            argv = (str(python), "-m", "ridgeline_service.serving.llm")
            return Environment(python=python, site_dirs=_source_roots(), argv=argv)
        python = self._ensure_venv(runtime, on_progress)
        if runtime.kind == "training":
            return Environment(python=python, site_dirs=(), argv=(str(python),))
        return Environment(
            python=python,
            site_dirs=(_FRAMEWORK_SERVER.parent,),
            # -P: the server's own folder must not shadow the user's modules.
            argv=(str(python), "-P", "-u", str(_FRAMEWORK_SERVER)),
        )

    def overlay(
        self, runtime: Runtime, requirements_txt: bytes, on_progress: Progress = no_progress
    ) -> Path:
        """A directory with what ``requirements_txt`` asks for beyond the runtime's own packages,
        whose versions are fixed. Equal requirements share one.

        Raises InstallFailed with pip's last lines, NoRoom, and Unsupported for a runtime that runs
        no user code or where no sandbox can be made.
        """
        if runtime.kind == "llm":
            raise Unsupported(
                f"Runtime {runtime.name!r} runs no user code, so it takes no requirements.txt."
            )
        lines = _requirement_lines(requirements_txt)
        python = self.ensure(runtime, on_progress).python
        key = _digest({"runtime": _venv_key(runtime), "lines": lines})
        final = self._overlays / key
        if final.is_dir():
            return final
        with (
            full_disk_named(_ASKED_FOR),
            _locked(self._overlays / f"{key}.lock", on_progress) as lock,
        ):
            if final.is_dir():
                return final
            for leftover in self._overlays.glob(f".{key}.*"):
                shutil.rmtree(leftover, ignore_errors=True)
            with tempfile.TemporaryDirectory(
                dir=self._overlays, prefix=f".{key}.", ignore_cleanup_errors=True
            ) as folder:
                packages = Path(folder) / "packages"
                packages.mkdir()
                if lines:
                    self._install_overlay(python, lines, Path(folder), on_progress, lock)
                packages.chmod(0o755)
                packages.rename(final)
        return final

    def _ensure_venv(self, runtime: Runtime, progress: Progress) -> Path:
        final = self._environments / _venv_key(runtime)
        python = final / "bin" / "python"
        marker = final / ".ready"
        if marker.exists() and python.exists():
            return python
        what = f"The environment of runtime {runtime.name!r}"
        with (
            full_disk_named(what),
            _locked(self._environments / f"{final.name}.lock", progress) as lock,
        ):
            if marker.exists() and python.exists():
                return python
            shutil.rmtree(final, ignore_errors=True)
            progress(f"making the environment of {runtime.name}")
            try:
                self._install_venv(what, runtime, python, progress, lock)
                write_atomic(marker, json.dumps({"requirements": runtime.requirements}))
            except BaseException:
                # A partial environment may be all that fills the disk.
                shutil.rmtree(final, ignore_errors=True)
                raise
        return python

    def _install_venv(
        self, what: str, runtime: Runtime, python: Path, progress: Progress, lock: int
    ) -> None:
        folder = python.parent.parent
        for command in (
            (sys.executable, "-m", "venv", str(folder)),
            (
                *(str(python), "-m", "pip", "install", "--progress-bar=off"),
                *("--disable-pip-version-check", "--only-binary=:all:"),
                *pip.extra_arguments(),
                *runtime.requirements,
            ),
        ):
            pip.run(
                Command(command),
                what=f"{what} could not be made",
                hint="Is there a network, or a package index set by PIP_INDEX_URL or pip.conf?",
                progress=progress,
                environment=os.environ,
                keep_open=lock,
                check_room=partial(check_reserve, folder, what),
            )

    def _install_overlay(
        self, python: Path, lines: list[str], folder: Path, progress: Progress, lock: int
    ) -> None:
        """Two steps: find what is missing beyond the runtime, then install exactly that. (pip's
        ``--target`` alone ignores what is installed and would fetch torch again.)"""
        tool = self._require_sandbox()
        scratch = folder / "scratch"
        sandbox.prepare_scratch(scratch)
        home = scratch / "home"
        (home / "requirements.txt").write_text("\n".join(lines) + "\n")
        (home / "resolve.py").write_text(_RESOLVE)
        values = pip.settings(python.parent.parent)
        arguments = pip.extra_arguments()
        inside = sandbox.Sandbox(
            python=python,
            scratch=scratch,
            read_only=pip.named_paths([*values.values(), *arguments]),
            extra=(Mount("writable", _OVERLAY, str(folder / "packages")),),
        )
        values |= {"PIP_CACHE_DIR": f"{sandbox.HOME}/.cache", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        fixed = ",".join(sorted(_NOT_CONSTRAINED))
        command = (str(python), f"{sandbox.HOME}/resolve.py", _OVERLAY, fixed, *arguments)
        pip.run(
            sandbox.wrap(command, inside, tool),
            what="The packages of requirements.txt could not be installed",
            hint="The runtime's own packages keep their versions; a line that asks for another "
            "version of one of them cannot be met.",
            progress=progress,
            environment=sandbox.environment(values, python=python),
            keep_open=lock,
            check_room=partial(check_reserve, folder, _ASKED_FOR),
        )


# Runs inside the sandbox with the runtime's interpreter.
_RESOLVE = """
import json, os, subprocess, sys
from importlib.metadata import distributions

target, free, *arguments = sys.argv[1:]
home = os.environ["HOME"]
own = {d.metadata["Name"]: d.version for d in distributions()}
with open(f"{home}/constraints.txt", "w") as file:
    for name, version in own.items():
        if name.lower() not in free.split(","):
            file.write(f"{name}=={version}\\n")
pip = [sys.executable, "-m", "pip", "install", "--progress-bar=off", *arguments]
wanted = ["-r", f"{home}/requirements.txt", "-c", f"{home}/constraints.txt"]
report = f"{home}/report.json"
found = subprocess.call([*pip, "--dry-run", "--report", report, *wanted])
if found:
    sys.exit(found)
with open(report) as file:
    missing = json.load(file)["install"]
if not missing:
    sys.exit(0)
options = [
    line for line in open(f"{home}/requirements.txt") if line.startswith("-") and "-r" not in line
]
with open(f"{home}/resolved.txt", "w") as file:
    file.writelines(options)
    for item in missing:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        source = item["download_info"]
        if not item["is_direct"]:
            file.write(f"{name}=={version}\\n")
        elif "vcs_info" in source:
            commit = source["vcs_info"]["commit_id"]
            file.write(f"{name} @ {source['vcs_info']['vcs']}+{source['url']}@{commit}\\n")
        else:
            file.write(f"{name} @ {source['url']}\\n")
sys.exit(
    subprocess.call([*pip, "--no-deps", "--target", target, "-r", f"{home}/resolved.txt"])
)
"""


def _requirement_lines(requirements_txt: bytes) -> list[str]:
    """Lines that mean something: continuations joined, comments and blank lines dropped."""
    text = requirements_txt.decode("utf-8-sig", "replace").replace("\\\r\n", " ")
    lines = text.replace("\\\n", " ").splitlines()
    without_comments = (
        "" if line.lstrip().startswith("#") else line.partition(" #")[0].strip() for line in lines
    )
    return [" ".join(line.split()) for line in without_comments if line]


def _venv_key(runtime: Runtime) -> str:
    digest = _digest(
        {
            "requirements": sorted(runtime.requirements),
            "python": sys.version,
            "machine": platform.machine(),
        }
    )
    return f"{runtime.environment}-{digest}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def _source_roots() -> tuple[Path, ...]:
    """Source roots of our packages where they are not installed into the interpreter's prefix."""
    roots = []
    for name in _OURS:
        spec = find_spec(name)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            root = Path(location).parent
            if not root.is_relative_to(sys.prefix):
                roots.append(root)
    return tuple(dict.fromkeys(roots))


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[int]:
    """An exclusive lock on ``path``, which the kernel gives back when its holders are gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another build of the same packages")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)
