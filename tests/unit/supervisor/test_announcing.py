"""What `ridgeline up` says once the service is there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ridgeline_service.commands.up import _announce
from ridgeline_service.paths import DataDir

STATE: dict[str, object] = {"url": "http://127.0.0.1:1", "pid": 7}


@pytest.mark.parametrize("json_output", [False, True])
def test_a_reader_that_has_gone_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, json_output: bool
) -> None:
    """`ridgeline up | head -1` left the service without its supervisor."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        for _ in range(2):
            _announce(DataDir(tmp_path), STATE, detached=False, json_output=json_output)
        monkeypatch.undo()


def test_json_is_one_line_however_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _announce(DataDir(tmp_path), {**STATE, "long": "[x] " * 90}, detached=True, json_output=True)
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {**STATE, "data_dir": str(tmp_path), "long": "[x] " * 90}
