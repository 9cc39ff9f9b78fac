"""The machine's pip settings, as pip reads them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline_service.runtime import pip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without settings, whose configuration files are below this folder."""
    for name in os.environ:
        if name.startswith("PIP_") or name in pip.CARRIED:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def said_by_pip() -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    lines = (line.partition("=") for line in done.stdout.splitlines())
    return {name: " ".join(ast.literal_eval(value).split()) for name, _, value in lines}


def test_every_file_counts_that_pip_reads_and_the_same_one_wins(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home / "first/pip/pip.conf", "[global]\nindex-url = http://a\ntimeout = 1\nretries = 1\n")
    write(home / "second/pip/pip.conf", "[global]\nTIMEOUT = 2\nretries = 2\n")
    write(home / ".pip/pip.conf", "[global]\nretries = 3\nproxy = http://b\n")
    write(home / "xdg/pip/pip.conf", "[global]\nproxy = http://c\nextra_index_url =\n  d\n  e\n")
    for named in ("", str(home / "nothing"), str(home / "mine.conf")):
        if named:
            monkeypatch.setenv("PIP_CONFIG_FILE", named)
            write(home / "mine.conf", "[global]\nproxy = http://f\nextra-index-url = g\n")
        said = said_by_pip()
        assert said["global.retries"] in ("2", "3")
        found = pip.settings(Path(sys.prefix))
        for name, value in said.items():
            if not name.startswith("global."):
                continue
            variable = f"PIP_{name.removeprefix('global.').upper().replace('-', '_')}"
            assert found[variable] == value, (named, name)


def test_no_file_counts_where_pip_reads_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / ".pip/pip.conf", "[global]\ncert = /c\n")
    assert pip.settings(home)["PIP_CERT"] == "/c"
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert "PIP_CERT" not in pip.settings(home)


def test_installs_own_options_win_and_variables_win_over_files(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home / ".pip/pip.conf", "[install]\nfind-links = /i\ncert = /i\n[global]\ncert = /g\n")
    assert pip.settings(home)["PIP_CERT"] == "/i"
    monkeypatch.setenv("PIP_CERT", "/v")
    found = pip.settings(home)
    assert (found["PIP_CERT"], found["PIP_FIND_LINKS"]) == ("/v", "/i")


def test_a_file_that_cannot_be_read_hides_no_other(home: Path) -> None:
    write(home / ".pip/pip.conf", "not a configuration")
    write(home / "xdg/pip/pip.conf", "[global]\ncert = /c\n")
    assert pip.settings(home)["PIP_CERT"] == "/c"


def test_a_job_learns_where_packages_are_and_not_where_this_machine_keeps_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home / ".pip/pip.conf", "[global]\nindex-url = http://a\nuser = true\nlog = /l\n")
    monkeypatch.setenv("PIP_TARGET", "/t")
    monkeypatch.setenv("HTTPS_PROXY", "http://p")
    found = pip.job_settings(home)
    assert (found["PIP_INDEX_URL"], found["HTTPS_PROXY"]) == ("http://a", "http://p")
    assert not {"PIP_USER", "PIP_LOG", "PIP_TARGET", "PIP_CONFIG_FILE"} & found.keys()
