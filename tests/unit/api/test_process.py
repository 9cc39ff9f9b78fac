"""The control plane as a process: it serves on the socket it was given, keeps what it said over a
SIGKILL, and ends cleanly."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ridgeline_service.api.__main__ import parse_arguments
from ridgeline_service.paths import DataDir

pytestmark = pytest.mark.e2e


class Process:
    def __init__(self, folder: Path) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.data_dir = DataDir(folder)
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        fd = self.listening.fileno()
        self.child = subprocess.Popen(
            [
                *(sys.executable, "-m", "ridgeline_service.api"),
                *("--data-dir", str(self.data_dir.root), "--fd", str(fd)),
                *("--store-url", "http://127.0.0.1:9", "--public-url", "http://127.0.0.1:9"),
            ],
            pass_fds=[fd],
        )

    def end(self, number: signal.Signals) -> int:
        assert self.child is not None
        self.child.send_signal(number)
        return self.child.wait(20)

    def call(self, operation: str, body: object) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(*self.listening.getsockname(), timeout=30)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b'{"status": "ok"}'
        headers = {
            "X-Ridgeline-Internal": self.data_dir.internal_key.read_text(),
            "X-Ridgeline-Service": "sagemaker",
            "X-Amz-Target": f"SageMaker.{operation}",
        }
        connection.request("POST", "/", json.dumps(body), headers)
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        return answer.status, json.loads(raw or b"{}")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    started = Process(tmp_path / "data")
    yield started
    if started.child is not None and started.child.poll() is None:
        started.child.kill()
        started.child.wait()
    started.listening.close()


def test_it_keeps_its_word_over_a_kill_and_ends_cleanly(process: Process) -> None:
    process.start()
    model = {
        "ModelName": "kept",
        "ExecutionRoleArn": "arn:aws:iam::123456789012:role/R",
        "PrimaryContainer": {"Image": "repository/image:tag"},
    }
    assert process.call("CreateModel", model)[0] == 200
    assert stat.S_IMODE(process.data_dir.root_key.stat().st_mode) == 0o600
    assert process.end(signal.SIGKILL) == -signal.SIGKILL
    process.start()
    status, described = process.call("DescribeModel", {"ModelName": "kept"})
    assert status == 200
    assert described["PrimaryContainer"] == model["PrimaryContainer"]
    assert process.end(signal.SIGTERM) == 0


def test_arguments_are_required(capsys) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--data-dir", "x"])
    assert "--fd" in capsys.readouterr().err
