"""SIGKILL of any one process loses nothing acknowledged, and all is healthy again soon."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from ridgeline_testing import (
    RIDGELINE,
    Service,
    read_env,
    running_service,
    shell_environment,
    until,
)

from ridgeline_service.paths import DataDir
from ridgeline_service.processes import ProcessId, find_by_command
from ridgeline_service.supervisor.state import read_state

pytestmark = pytest.mark.e2e
ENDPOINT = "survivor"
HEALTHY_AGAIN_S = 15.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("chaos") / "data") as running:
        running.deploy(ENDPOINT, count=2)
        yield running


class Load:
    """Requests without pause from a few threads; keeps every outcome."""

    def __init__(self, service: Service, threads: int = 4) -> None:
        self.outcomes: list[tuple[float, str]] = []
        self._stop = threading.Event()
        self._url = f"{service.url}/v1/completions"
        self._headers = {"Authorization": f"Bearer {service.api_key}"}
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        until(lambda: len(self.outcomes) > 10, 30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        body = {"model": ENDPOINT, "prompt": "Hello", "max_tokens": 8}
        while not self._stop.is_set():
            try:
                # A connection of its own for each request, as separate clients would have.
                answer = httpx.post(self._url, json=body, headers=self._headers, timeout=30)
                outcome = str(answer.status_code)
                if answer.status_code != 200:
                    assert answer.json()["error"]["message"]
            except httpx.ConnectError:
                outcome = "refused"
            except httpx.TransportError:
                outcome = "closed"
            self.outcomes.append((time.monotonic(), outcome))

    def answered_since(self, moment: float) -> int:
        return sum(1 for at, outcome in self.outcomes if at > moment and outcome == "200")

    def failures(self) -> list[str]:
        return [outcome for _, outcome in self.outcomes if outcome != "200"]


def kill(process: ProcessId) -> float:
    os.kill(process.pid, signal.SIGKILL)
    return time.monotonic()


def child(service: Service, name: str) -> ProcessId:
    state = read_state(DataDir(service.data_dir))
    assert state is not None
    return state.children[name]


def replica_processes(service: Service) -> list[ProcessId]:
    """The processes that hold a replica: its recorded one first."""
    found = []
    for record in sorted((service.data_dir / "replicas").glob("*/process.json")):
        raw = json.loads(record.read_text())
        process = ProcessId(raw["pid"], raw["start_time"])
        if process.alive():
            found.append(process)
    return found


def control_answers(service: Service) -> bool:
    try:
        service.client("sagemaker").list_endpoints()
    except Exception:  # any failure means "not yet"
        return False
    return True


def test_gateway(service: Service) -> None:
    with Load(service) as load:
        before = child(service, "gateway")
        moment = kill(before)
        until(lambda: load.answered_since(moment + 0.5) > 20, HEALTHY_AGAIN_S)
    # Only what was in flight on the killed process: one request a thread, at most.
    assert len(load.failures()) <= 4, load.failures()
    assert set(load.failures()) <= {"closed"}, "connections made meanwhile must wait, not fail"
    assert child(service, "gateway") != before


def test_control_plane(service: Service) -> None:
    service.client("sagemaker").add_tags(
        ResourceArn=endpoint_arn(service), Tags=[{"Key": "kept", "Value": "yes"}]
    )
    replicas = replica_processes(service)
    with Load(service) as load:
        moment = kill(child(service, "control"))
        until(lambda: control_answers(service), HEALTHY_AGAIN_S)
        until(lambda: load.answered_since(moment) > 20, HEALTHY_AGAIN_S)
    assert load.failures() == []
    assert replica_processes(service) == replicas, "replicas are adopted, not started again"
    tags = service.client("sagemaker").list_tags(ResourceArn=endpoint_arn(service))["Tags"]
    assert {"Key": "kept", "Value": "yes"} in tags


def endpoint_arn(service: Service) -> str:
    described = service.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)
    arn: str = described["EndpointArn"]
    return arn


def test_object_store(service: Service) -> None:
    s3 = service.client("s3", retries=4)
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="object", Body=b"acknowledged")
    with Load(service) as load:
        kill(child(service, "objects"))
        assert s3.get_object(Bucket="kept", Key="object")["Body"].read() == b"acknowledged"
    assert load.failures() == []


def test_replica(service: Service) -> None:
    [first, *_] = before = replica_processes(service)
    assert len(before) == 2
    with Load(service) as load:
        moment = kill(first)
        until(
            lambda: (
                len(set(replica_processes(service)) - {first}) == 2
                and load.answered_since(moment + 1) > 20
            ),
            HEALTHY_AGAIN_S,
        )
    assert set(load.failures()) <= {"502", "503"}, load.failures()
    assert len(load.failures()) <= 4
    service.wait_in_service(ENDPOINT)


def test_supervisor_then_up_adopts_everything(service: Service) -> None:
    state = read_state(DataDir(service.data_dir))
    assert state is not None
    replicas = replica_processes(service)
    with Load(service) as load:
        moment = kill(state.supervisor)
        until(lambda: load.answered_since(moment) > 10, HEALTHY_AGAIN_S)
        subprocess.run(
            [RIDGELINE, "up", "--detach", "--port", str(state.port)]
            + ["--data-dir", str(service.data_dir)],
            env=shell_environment(),
            check=True,
            timeout=60,
        )
        after = read_state(DataDir(service.data_dir))
        until(lambda: load.answered_since(moment + 1) > 20, HEALTHY_AGAIN_S)
    assert load.failures() == []
    assert after is not None
    assert after.children == state.children
    assert after.supervisor != state.supervisor
    assert replica_processes(service) == replicas
    kill(after.children["gateway"])  # the new supervisor restarts what the old one had started
    until(lambda: httpx.get(service.url + "/healthz").status_code == 200, HEALTHY_AGAIN_S)


def test_down_after_the_supervisor_was_killed_leaves_nothing(tmp_path: Path) -> None:
    with running_service(tmp_path / "data") as own:
        own.deploy("orphan")
        state = read_state(DataDir(own.data_dir))
        assert state is not None
        kill(state.supervisor)
        subprocess.run(
            [RIDGELINE, "down", "--data-dir", str(own.data_dir)],
            env=shell_environment(),
            check=True,
            timeout=60,
        )
        assert find_by_command(str(own.data_dir)) == []
        subprocess.run(
            [RIDGELINE, "up", "--detach", "--port", "0", "--data-dir", str(own.data_dir)],
            env=shell_environment(),
            check=True,
            timeout=60,
        )
        again = Service(own.data_dir, read_env(own.data_dir))
        again.wait_in_service("orphan")
        answer = httpx.post(
            f"{again.url}/v1/completions",
            json={"model": "orphan", "prompt": "x", "max_tokens": 2},
            headers={"Authorization": f"Bearer {again.api_key}"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text


def take_port(port: int) -> socket.socket:
    """As soon as the last thread of whoever had it is gone."""
    for _ in range(50):
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"port {port} is never free")


def test_a_port_that_is_taken_meanwhile_leaves_nobody_misled(tmp_path: Path) -> None:
    with running_service(tmp_path / "data") as own:
        state = read_state(DataDir(own.data_dir))
        assert state is not None
        for process in (state.supervisor, state.children["control"]):
            kill(process)
            until(lambda process=process: not process.alive(), 10)
        taken = take_port(int(state.control_url.rpartition(":")[2]))
        subprocess.run(
            [RIDGELINE, "up", "--detach", "--port", str(state.port)]
            + ["--data-dir", str(own.data_dir)],
            env=shell_environment(),
            check=True,
            timeout=60,
        )
        after = read_state(DataDir(own.data_dir))
        assert after is not None
        assert after.control_url != state.control_url
        assert "No jobs" in own.cli("jobs").stderr, "the gateway reaches the control plane"
        taken.close()
