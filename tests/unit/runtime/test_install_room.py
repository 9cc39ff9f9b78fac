"""Installing packages keeps the disk's reserve and leaves nothing half made."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from ridgeline_service.placement import disk
from ridgeline_service.placement.disk import NoRoom
from ridgeline_service.runtime.environments import Environments
from ridgeline_service.runtime.images import Runtime
from ridgeline_service.runtime.pip import InstallFailed

TINY = Runtime("tiny", "framework", "for tests", "tiny", ("ridgepebble==1.0",), needs_opt_ml=True)

_VENV = """#!/bin/sh
mkdir -p "$3/bin"
cp "$(dirname "$0")/pip" "$3/bin/python"
"""

_GROWS_FOR_EVER = """#!/bin/sh
echo Collecting ridgepebble
echo x > "$(dirname "$0")/big"
exec sleep 600
"""

_FAILS = """#!/bin/sh
echo "ERROR: $(basename "$(dirname "$0")") is no package"
exit 1
"""

_FINDS_NO_SPACE = """#!/bin/sh
echo x > "$(dirname "$0")/big"
echo "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
exit 1
"""


class Machine:
    """Commands in place of venv and pip, and a disk whose reserve is left alone until there is a
    file called ``big``."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = root / "cache"
        self._tools = root / "tools"
        self._tools.mkdir()
        self.write("venv", _VENV)
        monkeypatch.setattr(sys, "executable", str(self._tools / "venv"))
        real = shutil.disk_usage(root)

        def usage(_place: Path) -> object:
            full = any(self.cache.rglob("big"))
            return real._replace(free=disk.RESERVE_BYTES - full)

        monkeypatch.setattr(disk.shutil, "disk_usage", usage)

    def ensure(self, pip: str) -> None:
        self.write("pip", pip)
        Environments(self.cache).ensure(TINY)

    def left(self) -> list[Path]:
        return [path for path in (self.cache / "environments").glob("*") if path.is_dir()]

    def write(self, name: str, text: str) -> None:
        (self._tools / name).write_text(text)
        (self._tools / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@pytest.mark.parametrize("pip", [_GROWS_FOR_EVER, _FINDS_NO_SPACE])
def test_an_install_that_takes_of_the_reserve_is_ended_and_removed(
    machine: Machine, pip: str
) -> None:
    with pytest.raises(NoRoom, match="environment of runtime 'tiny' does not fit"):
        machine.ensure(pip)
    assert machine.left() == []


def test_none_is_begun_where_only_the_reserve_is_left(machine: Machine) -> None:
    machine.cache.mkdir()
    (machine.cache / "big").touch()
    with pytest.raises(NoRoom, match="256 MiB"):
        machine.ensure(_FAILS)
    assert machine.left() == []


def test_what_fails_for_another_reason_leaves_nothing_either(machine: Machine) -> None:
    with pytest.raises(InstallFailed, match="is no package"):
        machine.ensure(_FAILS)
    assert machine.left() == []


def test_one_that_nobody_wants_any_more_leaves_nothing_either(machine: Machine) -> None:
    def unwanted(line: str) -> None:
        if line.startswith("Collecting"):
            raise InterruptedError

    machine.write("pip", _GROWS_FOR_EVER.replace("big", "small"))
    with pytest.raises(InterruptedError):
        Environments(machine.cache).ensure(TINY, unwanted)
    assert machine.left() == []
