"""Log lines and records of the shim, in process."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.runtime import shim
from ridgeline_service.runtime.keeper import ExitStatus


def events(path: Path) -> list[str]:
    return [json.loads(line)["m"] for line in path.read_text().splitlines()]


@given(
    data=st.binary(max_size=400),
    cuts=st.lists(st.integers(min_value=0, max_value=400), max_size=6),
)
def test_no_line_is_lost_however_the_output_is_cut(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("log") / "g" / "s.jsonl"
    log = shim.Log(str(path), 1 << 20)
    edges = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(edges):
        log.feed(data[start:end])
    log.close()
    lines = data.replace(b"\r", b"\n").split(b"\n")
    assert events(path) == [line.decode("utf-8", "replace") for line in lines if line]


def test_a_very_long_line_is_split_between_characters(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    log = shim.Log(str(path), 1 << 30)
    text = "x" + "é" * shim.MAX_LINE
    raw = text.encode()
    for start in range(0, len(raw), shim.READ_SIZE):
        log.feed(raw[start : start + shim.READ_SIZE])
    log.close()
    parts = events(path)
    assert "".join(parts) == text
    assert all(len(part.encode()) <= shim.MAX_LINE for part in parts)


@given(st.text(min_size=1, max_size=50), st.integers(min_value=4, max_value=20))
def test_split_line_keeps_every_character(text: str, limit: int) -> None:
    before = shim.MAX_LINE
    shim.MAX_LINE = limit
    try:
        parts = shim.split_line(text.encode())
    finally:
        shim.MAX_LINE = before
    assert "".join(part.decode() for part in parts) == text
    assert all(len(part) <= limit for part in parts)


def test_a_full_stream_says_so_once_and_counts_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    log = shim.Log(str(path), 200)
    for number in range(20):
        log.feed(b"line %d\n" % number)
    log.close()
    found = events(path)
    kept = [line for line in found if line.startswith("line")]
    assert kept == [f"line {number}" for number in range(len(kept))]
    assert sum("is full" in line for line in found) == 1
    assert found[-1] == f"[{20 - len(kept)} lines were not kept]"


def test_a_full_disk_stops_neither_server_nor_later_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.jsonl"
    log = shim.Log(str(path), 1 << 20)
    real = os.write
    room = [10]

    def write(handle: int, data: bytes) -> int:
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        done = real(handle, bytes(data)[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", write)
    log.feed(b"lost\n")
    room[0] = 1 << 20
    log.feed(b"kept\n")
    log.close()
    monkeypatch.undo()
    torn, *rest = path.read_text().splitlines()
    assert len(torn) == 10
    assert [json.loads(line)["m"] for line in rest] == ["kept", "[1 lines were not kept]"]


def test_records_are_private(tmp_path: Path) -> None:
    shim.write_private(f"{tmp_path}/process.json", {"token": "t"})
    assert (tmp_path / "process.json").stat().st_mode & 0o777 == 0o600


def test_the_start_time_names_a_process_whatever_it_is_called() -> None:
    assert shim.start_time(os.getpid()) > 0
    assert shim.start_time(os.getpid()) == shim.start_time(os.getpid())


def test_a_log_that_was_deleted_is_begun_anew(tmp_path: Path) -> None:
    """With its folder, and with all of its room."""
    path = tmp_path / "g" / "s.jsonl"
    log = shim.Log(str(path), 100)
    log.feed(b"x" * 60 + b"\n" + b"y" * 60 + b"\n")
    assert "is full" in events(path)[-1]
    path.unlink()
    path.parent.rmdir()
    log.feed(b"one\n")
    log.feed(b"two\n")
    log.close()
    assert events(path)[:2] == ["one", "two"]


@pytest.mark.parametrize(
    ("status", "namespace", "words"),
    [
        (3, True, "exited with status 3"),
        (255, True, "exited with status 255"),
        (139, False, "exited with status 139"),
        (139, True, "exited with status 139, or was ended by SIGSEGV"),
        (-11, True, "was ended by SIGSEGV"),
    ],
)
def test_how_a_process_ended_is_told_as_far_as_it_is_known(
    status: int, namespace: bool, words: str
) -> None:
    """A sandbox tool ends with 128 + the number of a signal, as a program may by itself."""
    assert ExitStatus(*shim.ending(status, namespace=namespace), at=0.0).words == words
