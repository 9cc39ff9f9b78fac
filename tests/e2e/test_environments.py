"""Environments and overlays made by the real pip, from wheels made here: nothing is downloaded."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ridgeline.errors import Unsupported
from ridgeline_service.runtime import sandbox
from ridgeline_service.runtime.environments import Environments
from ridgeline_service.runtime.images import Runtime, resolve
from ridgeline_service.runtime.pip import InstallFailed

pytestmark = pytest.mark.e2e

TINY = Runtime("tiny", "framework", "for tests", "tiny", ("ridgepebble==1.0",), needs_opt_ml=True)


def wheel(folder: Path, name: str, version: str, code: str, requires: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
        record += f"{path},sha256={digest.rstrip('=')},{len(text)}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    wheel(folder, "ridgepebble", "1.0", "VALUE = 'runtime'\n")
    wheel(folder, "ridgepebble", "2.0", "VALUE = 'newer'\n")
    wheel(folder, "ridgestone", "1.0", "import ridgepebble\n", requires="ridgepebble")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def only_these_wheels(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIDGELINE_PIP_ARGS", f"--no-index --find-links {wheels}")


def says(python: Path, code: str, **environment: str) -> str:
    done = subprocess.run(
        (str(python), "-c", code), env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_an_environment_is_its_own_and_made_once(cache: Path) -> None:
    lines: list[str] = []
    made = Environments(cache).ensure(TINY, lines.append)
    assert any("ridgepebble" in line for line in lines)
    assert says(made.python, "import ridgepebble; print(ridgepebble.VALUE)") == "runtime"
    seen = says(made.python, "import sys; print(sys.prefix, sys.path)")
    assert sys.prefix not in seen.replace(sys.base_prefix, "")
    again: list[str] = []
    assert Environments(cache).ensure(TINY, again.append) == made
    assert again == []


def test_builders_at_once_make_one(tmp_path: Path) -> None:
    lines: list[str] = []
    with ThreadPoolExecutor(3) as pool:
        made = set(pool.map(lambda _: Environments(tmp_path).ensure(TINY, lines.append), range(3)))
    assert len(made) == 1
    assert sum("making the environment" in line for line in lines) == 1
    assert sum("waiting for another build" in line for line in lines) == 2


def test_a_killed_builder_leaves_nothing_that_is_used(tmp_path: Path, wheels: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from ridgeline_service.runtime.environments import Environments
from ridgeline_service.runtime.images import Runtime
runtime = Runtime("tiny", "framework", "", "tiny", ("ridgepebble==1.0",), needs_opt_ml=True)
Environments(Path({str(tmp_path)!r})).ensure(runtime, lambda line: print(line, flush=True))
"""
    with subprocess.Popen((sys.executable, "-c", code), stdout=subprocess.PIPE) as builder:
        assert builder.stdout is not None
        builder.stdout.readline()
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("environments/tiny-*/bin/python")):
            assert time.monotonic() < deadline
            threading.Event().wait(0.005)
        os.kill(builder.pid, signal.SIGKILL)
    assert not list(tmp_path.glob("environments/tiny-*/.ready"))
    made = Environments(tmp_path).ensure(TINY)
    assert says(made.python, "import ridgepebble; print(ridgepebble.VALUE)") == "runtime"


def test_a_failed_build_tells_pips_last_lines_and_can_be_tried_again(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIDGELINE_PIP_ARGS", "--no-index")
    with pytest.raises(InstallFailed) as caught:
        Environments(tmp_path).ensure(TINY)
    assert "'tiny'" in caught.value.message
    assert any("ridgepebble==1.0" in line for line in caught.value.log_tail)
    monkeypatch.setenv("RIDGELINE_PIP_ARGS", f"--no-index --find-links {wheels}")
    assert Environments(tmp_path).ensure(TINY).python.exists()


def needs_sandbox() -> None:
    if sandbox.capability().tool is None:
        pytest.skip(sandbox.capability().summary)


def test_equal_requirements_share_an_overlay_that_holds_only_what_is_missing(cache: Path) -> None:
    needs_sandbox()
    environments = Environments(cache)
    made = environments.overlay(TINY, b"# ours\nridgestone\n\n")
    assert environments.overlay(TINY, b"ridgestone   # the same\r\n") == made
    assert (made / "ridgestone.py").exists()
    assert not (made / "ridgepebble.py").exists()
    python = environments.ensure(TINY).python
    code = "import ridgestone; print(ridgestone.ridgepebble.VALUE)"
    assert says(python, code, PYTHONPATH=str(made)) == "runtime"
    assert environments.overlay(TINY, b"ridgestone==1.0\n") != made


def test_requirements_against_the_runtimes_packages_fail_with_pips_words(cache: Path) -> None:
    needs_sandbox()
    environments = Environments(cache)
    with pytest.raises(InstallFailed) as caught:
        environments.overlay(TINY, b"ridgepebble==2.0\n")
    assert any("ridgepebble==2.0" in line for line in caught.value.log_tail)
    assert "own packages" in caught.value.hint
    assert not [path for path in (cache / "overlays").iterdir() if path.name.startswith(".")]


def test_a_build_script_of_the_users_sees_neither_cache_nor_home(
    cache: Path, wheels: Path, tmp_path: Path
) -> None:
    """A package that has to be built runs its own code: in the sandbox, where nothing is."""
    needs_sandbox()
    source = wheels / "ridgespy"
    source.mkdir(exist_ok=True)
    (source / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    )
    (source / "backend.py").write_text(
        "import os\n"
        f"seen = [p for p in {[str(cache / 'overlays'), str(tmp_path)]!r} if os.path.exists(p)]\n"
        "raise SystemExit(f'seen: {seen}')\n"
    )
    with pytest.raises(InstallFailed) as caught:
        Environments(cache).overlay(TINY, f"ridgespy @ file://{source}\n".encode())
    assert any("seen: []" in line for line in caught.value.log_tail)


def test_no_requirements_need_no_pip_and_language_models_take_none(cache: Path) -> None:
    made = Environments(cache).overlay(TINY, b"# nothing\n\n")
    assert list(made.iterdir()) == []
    with pytest.raises(Unsupported, match="llm"):
        Environments(cache).overlay(resolve("djl-inference"), b"six\n")
