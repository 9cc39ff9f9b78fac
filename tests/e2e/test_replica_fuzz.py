"""A replica under random requests: no fault, no leaked block, memory flat, and it answers after.

A few hundred by default. ``RIDGELINE_FUZZ_REQUESTS=10000`` runs the long one, and
``RIDGELINE_FUZZ_SEED`` another sequence of requests.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from random_requests import Manner, Request, request

pytestmark = pytest.mark.e2e

REQUESTS = int(os.environ.get("RIDGELINE_FUZZ_REQUESTS", "400"))
SEED = int(os.environ.get("RIDGELINE_FUZZ_SEED", "1"))
CLIENTS = 12
TOKEN = "fuzz"
PATIENCE_S = 60.0
GROWTH_BYTES = 48 * 2**20
"""What memory may grow by after the first requests: allocators keep some of what was in use."""
FIRST = max(REQUESTS // 5, 400)
"""By then every kind of request has come, and what is kept of each (grammars, scratch) is there."""


@dataclass
class Replica:
    process: psutil.Process
    port: int
    log: Path

    def get(self, path: str) -> bytes:
        return self.call("GET", path, None)

    def call(self, method: str, path: str, body: object) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            raw = None if body is None else json.dumps(body).encode()
            connection.request(method, path, raw, {"X-Ridgeline-Token": TOKEN})
            answer = connection.getresponse()
            assert answer.status == 200
            return answer.read()
        finally:
            connection.close()

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/ridgeline/metrics"))
        return found

    def wait_idle(self) -> dict[str, Any]:
        """Its state once nothing is in flight."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            state = self.state()
            engine = state["engine"]
            if not (state["in_flight"] or engine["running"] or engine["waiting"]):
                return state
            assert time.monotonic() < deadline, f"never idle: {state}"
            time.sleep(0.05)

    def send(self, wanted: Request) -> int:
        """Behave as the request says. The status of the answer; 0 where none was waited for."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as client:
            if wanted.manner is Manner.READS_SLOWLY:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            try:
                client.sendall(wanted.raw)
                return self._read(client, wanted.manner)
            except (BrokenPipeError, ConnectionResetError):
                return 0  # it refused before it had read all

    def _read(self, client: socket.socket, manner: Manner) -> int:
        if manner in (Manner.LEAVES_AT_ONCE, Manner.SENDS_HALF):
            return 0
        head = client.recv(2048)
        if manner is Manner.READS:
            while client.recv(2**16):
                pass
        elif manner is Manner.READS_SLOWLY:
            for _ in range(20):
                time.sleep(0.01)
                if not client.recv(64):
                    break
        return int(head[9:12]) if head else 0


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "tiny"
    command = [sys.executable, "-m", "ridgeline_zoo.prepare", "tiny-llama-seeded"]
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True, timeout=120)
    return out


@pytest.fixture
def replica(model_dir: Path, tmp_path: Path) -> Iterator[Replica]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "RIDGELINE_REPLICA_TOKEN": TOKEN,
        "RIDGELINE_MODEL_DIR": str(model_dir),
        "RIDGELINE_THREADS": "1",
        "OPTION_MAX_MODEL_LEN": "128",
    }
    log = tmp_path / "replica.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "ridgeline_service.serving.llm"],
            stdout=file,
            stderr=file,
            env=environment,
        )
    try:
        deadline = time.monotonic() + 300
        while "Ready in " not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield Replica(psutil.Process(process.pid), port, log)
    finally:
        process.kill()
        process.wait(20)


def test_random_requests_do_no_harm(replica: Replica) -> None:
    free = replica.wait_idle()["engine"]["free_blocks"]
    random = Random(SEED)
    statuses: Counter[int] = Counter()
    faults: list[str] = []

    def one(wanted: Request) -> None:
        try:
            status = replica.send(wanted)
        except TimeoutError:
            faults.append(f"nothing for {PATIENCE_S:g} s: {wanted.about}")
            return
        statuses[status] += 1
        if status >= 500:
            faults.append(f"{status}: {wanted.about}")

    def run(count: int) -> int:
        """Send that many; the process's resident bytes afterwards."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            for done in [clients.submit(one, request(random, TOKEN)) for _ in range(count)]:
                done.result()
        replica.wait_idle()
        return int(replica.process.memory_info().rss)

    before = run(FIRST)
    after = run(max(200, REQUESTS - FIRST))
    print(f"statuses {dict(statuses)}, memory {before >> 20} to {after >> 20} MiB")

    assert not faults, "\n".join(faults[:20])
    assert "Traceback" not in replica.log.read_text()
    assert statuses[200] > REQUESTS // 4, statuses
    assert statuses[400] > REQUESTS // 20, statuses
    engine = replica.wait_idle()["engine"]
    assert engine["alive"]
    assert engine["free_blocks"] == engine["total_blocks"] == free, "blocks leaked"
    assert after - before < GROWTH_BYTES
    ended = engine["finished"] + engine["cancelled"] + engine["failed"] + engine["timed_out"]
    assert engine["cancelled"] > 0, "clients that left ended what they had begun"
    metrics = replica.get("/metrics").decode()
    assert ended > 0
    assert "vllm:num_requests_running" in metrics
    answer = json.loads(
        replica.call(
            "POST", "/v1/completions", {"prompt": "Hi", "max_tokens": 4, "ignore_eos": True}
        )
    )
    assert answer["usage"]["completion_tokens"] == 4


def test_a_client_that_leaves_gives_its_blocks_back(replica: Replica) -> None:
    """With sequences of its own in the running batch and in the queue."""
    body = {"prompt": "Hi", "max_tokens": 100, "n": 40, "stream": True, "ignore_eos": True}
    raw = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Ridgeline-Token: {TOKEN}\r\n"
    with socket.create_connection(("127.0.0.1", replica.port), timeout=PATIENCE_S) as client:
        client.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        assert client.recv(2048).startswith(b"HTTP/1.1 200")
        assert replica.state()["engine"]["free_blocks"] < replica.state()["engine"]["total_blocks"]
    engine = replica.wait_idle()["engine"]
    assert engine["free_blocks"] == engine["total_blocks"]
    assert engine["cancelled"] > 0
