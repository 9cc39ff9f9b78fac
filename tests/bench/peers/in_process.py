"""Peers without a server of their own: a driver in the peer's environment runs the closed loop.

The driver is a process that says ``{"ready": true}`` on a line, then answers each line
``{"prompts": [[token, ...], ...], "max_tokens": n, "concurrency": c}`` with
``{"wall_s": s, "requests": [{"start": s, "times": [s, ...]}, ...]}``: a time for each token,
seconds of its own clock. What it prints besides goes to standard error. It pays for no HTTP and no
tokenising, which is to be kept in mind when its figures stand beside a server's.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from figures import Figures, RequestTimes, figures
from workload import Prompts, Workload

from peers.base import PeerFailed, Running, stop_group


class Driver(Running):
    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._name = name
        self._process = process

    def run(self, workload: Workload, prompts: Prompts) -> Figures:
        assert self._process.stdin is not None
        request = {
            "prompts": [list(prompt) for prompt in workload.prompts],
            "max_tokens": workload.max_tokens,
            "concurrency": workload.concurrency,
        }
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = self.read()
        requests = [
            RequestTimes(entry["start"], tuple(entry["times"]), len(entry["times"]))
            for entry in answer["requests"]
        ]
        return figures(requests, answer["wall_s"], workload.max_tokens)

    def read(self) -> dict[str, Any]:
        """The next line that is JSON: libraries print to standard output as they please."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise PeerFailed(f"The driver of {self._name} ended with {self._process.wait()}.")


@contextmanager
def driver_process(
    name: str, python: Path, arguments: Sequence[str], log: Path
) -> Iterator[Driver]:
    """Start a driver and wait until it has loaded the model. Raises PeerFailed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [str(python), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            process_group=0,
        )
    try:
        driver = Driver(name, process)
        driver.read()
        yield driver
    finally:
        stop_group(process)
