"""The figures that matter, measured side by side in one run. Prints JSON; asserts nothing.

make bench                        all
.venv/bin/python tests/bench/run.py control gateway start deploy memory
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import boto3
import httpx2 as httpx
import psutil
from ridgeline_testing import (
    Service,
    end_tidily_when_told,
    running_service,
    shell_environment,
    until,
)

from ridgeline_service.paths import DataDir
from ridgeline_service.snapshot import read_snapshot
from ridgeline_service.supervisor.state import read_state

MODEL_REQUEST = {
    "ExecutionRoleArn": "arn:aws:iam::123456789012:role/RidgelineExecution",
    "PrimaryContainer": {
        "Image": "763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.30.0",
        "Environment": {"HF_MODEL_ID": "tiny-llama-seeded"},
    },
}


def main() -> None:
    end_tidily_when_told()
    wanted = sys.argv[1:] or ["control", "gateway", "deploy", "memory"]
    report: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="ridgeline-bench-") as name:
        data_dir = Path(name) / "data"
        report["up_to_ready_s"] = {"first": start_once(data_dir), "second": start_once(data_dir)}
        with running_service(data_dir) as service:
            if "memory" in wanted:
                report["idle_memory_mib"] = idle_memory(service)
            if "control" in wanted:
                report["control_plane"] = control_plane(service)
            if "gateway" in wanted:
                report["gateway_overhead_ms"] = gateway_overhead(service)
            if "deploy" in wanted:
                report["deploy_to_first_token_s"] = deploy(service)
    print(json.dumps(report, indent=2))


def machine() -> dict[str, Any]:
    model = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "cpu": model[0].partition(": ")[2] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def start_once(data_dir: Path) -> float:
    started = time.perf_counter()
    with running_service(data_dir):
        return round(time.perf_counter() - started, 2)


def idle_memory(service: Service) -> dict[str, float]:
    state = read_state(DataDir(service.data_dir))
    assert state is not None
    parts = {"supervisor": state.supervisor, **state.children}
    sizes = {
        name: round(psutil.Process(process.pid).memory_full_info().uss / 2**20, 1)
        for name, process in parts.items()
    }
    return {**sizes, "total_uss": round(sum(sizes.values()), 1), "total_rss": rss(parts)}


def rss(parts: dict[str, Any]) -> float:
    sizes = [psutil.Process(process.pid).memory_info().rss for process in parts.values()]
    return round(sum(sizes) / 2**20, 1)


def control_plane(service: Service) -> dict[str, Any]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    moto = subprocess.Popen(
        [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)],
        env=shell_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: listens(port), 30)
        other = boto3.client(
            "sagemaker",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )
        result: dict[str, Any] = {}
        for clients in (1, 8):
            for name, client in (("ridgeline", service.client("sagemaker")), ("moto", other)):
                prefix = f"{name}-{clients}"
                result.setdefault(f"{clients} clients", {})[name] = {
                    "CreateModel_per_s": rate(
                        lambda n, c=client, p=prefix: c.create_model(
                            ModelName=f"{p}-{n}", **MODEL_REQUEST
                        ),
                        clients,
                    ),
                    "DescribeModel_per_s": rate(
                        lambda n, c=client, p=prefix: c.describe_model(ModelName=f"{p}-{n}"),
                        clients,
                    ),
                }
        return result
    finally:
        moto.terminate()
        moto.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def rate(call: Callable[[int], object], clients: int, total: int = 600) -> float:
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        started = time.perf_counter()
        for _ in pool.map(call, range(total)):
            pass
        return round(total / (time.perf_counter() - started), 1)


def gateway_overhead(service: Service, requests: int = 400) -> dict[str, Any]:
    """The same bad request (refused by the replica before any generation), direct and through."""
    service.deploy("bench-tiny")
    endpoint = read_snapshot(DataDir(service.data_dir).snapshot).endpoints["bench-tiny"]
    replica = endpoint.variants[0].replicas[0]
    body = {"model": "bench-tiny", "prompt": "x", "max_tokens": 1, "temperature": 0}
    direct = httpx.Client(headers={"X-Ridgeline-Token": replica.token})
    through = httpx.Client(headers={"Authorization": f"Bearer {service.api_key}"})
    samples: dict[str, list[float]] = {"direct": [], "gateway": []}
    for number in range(requests + 50):
        for name, client, url in (
            ("direct", direct, replica.url),
            ("gateway", through, service.url),
        ):
            started = time.perf_counter()
            answer = client.post(f"{url}/v1/completions", json=body)
            elapsed = (time.perf_counter() - started) * 1000
            assert answer.status_code == 200, answer.text
            if number >= 50:
                samples[name].append(elapsed)
    service.delete("bench-tiny")
    result = {
        name: {"p50": round(quantile(values, 50), 2), "p99": round(quantile(values, 99), 2)}
        for name, values in samples.items()
    }
    result["added"] = {
        key: round(result["gateway"][key] - result["direct"][key], 2) for key in ("p50", "p99")
    }
    return result


def quantile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def deploy(service: Service) -> dict[str, Any]:
    """Cold: nothing downloaded by this service yet. Warm: the weights are in the store."""
    result: dict[str, Any] = {}
    for kind in ("cold", "warm"):
        name = f"bench-{kind}"
        started = time.perf_counter()
        service.deploy(name, "smollm2-135m-instruct")
        answer = httpx.post(
            f"{service.url}/v1/completions",
            json={"model": name, "prompt": "Hello", "max_tokens": 1},
            headers={"Authorization": f"Bearer {service.api_key}"},
            timeout=120,
        )
        assert answer.status_code == 200, answer.text
        stages = httpx.get(
            f"{service.url}/api/endpoints/{name}",
            headers={"Authorization": f"Bearer {service.api_key}"},
        ).json()["stages"]
        result[kind] = {
            "total": round(time.perf_counter() - started, 2),
            "stages": {stage["name"]: round(stage["seconds"], 2) for stage in stages},
        }
        service.delete(name)
    return result


if __name__ == "__main__":
    main()
