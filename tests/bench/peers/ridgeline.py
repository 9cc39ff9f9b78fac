"""Our replica, started as the launcher starts it, without the service around it."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from load import Target

from peers.base import HttpServer, Model, Peer, free_port, server_process

TOKEN = "benchmark"
HEADERS = {"X-Ridgeline-Token": TOKEN}


class Replica(HttpServer):
    def compute_seconds(self) -> tuple[float, float]:
        found = {}
        url = self.target.url.removesuffix("/v1") + "/metrics"
        with urllib.request.urlopen(urllib.request.Request(url, headers=HEADERS)) as answer:
            for line in answer.read().decode().splitlines():
                name, _, rest = line.partition("{")
                if name.startswith("ridgeline_compute_"):
                    found[name] = float(rest.rpartition(" ")[2])
        computing = found["ridgeline_compute_seconds_total"]
        return computing, found["ridgeline_compute_idle_seconds_total"]


class Ridgeline(Peer):
    def __init__(self, kind: str, settings: Mapping[str, str]) -> None:
        self.name = f"Ridgeline {kind}"
        self._settings = settings
        shown = "".join(f"{name}={value} " for name, value in settings.items())
        self.command = f"{shown}python -m ridgeline_service.serving.llm"

    def missing(self) -> str | None:
        return None

    @contextmanager
    def start(self, model: Model) -> Iterator[Replica]:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        environment = {
            **self._settings,
            "RIDGELINE_MODEL_DIR": str(model.folder),
            "RIDGELINE_REPLICA_TOKEN": TOKEN,
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "HF_MODEL_ID": "model",
        }
        command = [sys.executable, "-m", "ridgeline_service.serving.llm"]
        log = model.derived / f"{self.name.replace(' ', '-').lower()}.log"
        with server_process(self.name, command, environment, log, f"{url}/ping", HEADERS) as pid:
            yield Replica(pid, Target(f"{url}/v1", "model", HEADERS))


# Random words make the model repeat itself, which prompt lookup guesses as no real text would be
# guessed. The peers guess nothing: ours are compared without, and the default is shown beside.
_NO_GUESSES = {"OPTION_SPECULATIVE_CONFIG": "none"}
BF16 = Ridgeline("bf16", _NO_GUESSES)
INT8 = Ridgeline("int8", {"OPTION_QUANTIZE": "int8", **_NO_GUESSES})
BF16_LOOKUP = Ridgeline("bf16 with prompt lookup", {})
INT8_LOOKUP = Ridgeline("int8 with prompt lookup", {"OPTION_QUANTIZE": "int8"})
