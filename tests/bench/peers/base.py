"""What the benchmark asks of a server: is it installed, start it, run a workload."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from figures import Figures
from load import Target, run_workload
from workload import Prompts, Workload

REPOSITORY = Path(__file__).parents[3]
ENVIRONMENTS = REPOSITORY / ".venvs"
START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 20.0


class PeerFailed(Exception):
    """A peer did not start, or ended while it was measured. Names it and shows its log's end."""


@dataclass(frozen=True, slots=True)
class Model:
    """The model folder that is served, and where files derived from it (GGUF) are kept."""

    folder: Path
    derived: Path


class Running(ABC):
    """A peer that has loaded the model."""

    pid: int

    @abstractmethod
    def run(self, workload: Workload, prompts: Prompts) -> Figures:
        """Raises RunFailed or PeerFailed."""

    def compute_seconds(self) -> tuple[float, float] | None:
        """Seconds with work in hand so far, in steps and between them; None if it does not say."""
        return None


class Peer(ABC):
    """One way to serve the model."""

    name: str
    """As the tables show it."""
    command: str
    """How it is started, as the document shows it."""

    @abstractmethod
    def missing(self) -> str | None:
        """Why it cannot be started on this machine, or None."""

    @abstractmethod
    def start(self, model: Model) -> AbstractContextManager[Running]:
        """Start it, and stop it with all its children at the end. Raises PeerFailed."""


@dataclass(frozen=True)
class HttpServer(Running):
    pid: int
    target: Target

    def run(self, workload: Workload, prompts: Prompts) -> Figures:
        return run_workload(self.target, workload, prompts)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def server_process(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    ready_url: str,
    headers: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Start a server in a process group of its own, wait until ``ready_url`` answers 200.

    Gives its process id. Raises PeerFailed with the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(ready_url, headers or {}):
            if process.poll() is not None or time.monotonic() > deadline:
                raise PeerFailed(f"{name} did not start:\n{_tail(log)}")
            time.sleep(0.02)
        yield process.pid
    finally:
        stop_group(process)


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its group, and whatever it left in the group."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _answers(url: str, headers: Mapping[str, str]) -> bool:
    request = urllib.request.Request(url, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-12:])
