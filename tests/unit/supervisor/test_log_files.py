"""The service's own logs do not grow for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline_service.paths import DataDir
from ridgeline_service.supervisor import log_files
from ridgeline_service.supervisor.directory import prepare_directory
from ridgeline_service.supervisor.log_files import bound_logs


def test_a_log_is_cut_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "LIMIT_BYTES", 10)
    data_dir = DataDir(tmp_path)
    prepare_directory(data_dir)
    path, older = data_dir.logs / "control.log", data_dir.logs / "control.log.1"
    (data_dir.logs / "gateway.log").write_text("0123456789")
    with path.open("ab", buffering=0) as log:
        for words in (b"first words\n", b"other words\n"):
            log.write(words)
            bound_logs(data_dir)
            assert older.read_bytes() == words
            assert path.read_bytes() == b""
        log.write(b"last\n")
        bound_logs(data_dir)
    assert path.read_bytes() == b"last\n"
    assert (data_dir.logs / "gateway.log").read_text() == "0123456789"
