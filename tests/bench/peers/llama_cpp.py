"""llama.cpp's own server, built for this machine, on the weights as GGUF."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gguf_model import write_gguf
from load import Target

from peers.base import ENVIRONMENTS, HttpServer, Model, Peer, free_port, server_process

BINARY = ENVIRONMENTS / "llama.cpp" / "bin" / "llama-server"
OPTIONS = ("-t", "2", "-tb", "2", "-np", "32", "-c", "24576", "-b", "2048", "-ub", "512")


class LlamaCpp(Peer):
    def __init__(self, kind: str) -> None:
        self.name = f"llama.cpp {kind}"
        self.command = f"llama-server -m model-{kind}.gguf {' '.join(OPTIONS)}"
        self._kind = kind

    def missing(self) -> str | None:
        return None if BINARY.is_file() else "not built; install_peers.py llama.cpp builds it"

    @contextmanager
    def start(self, model: Model) -> Iterator[HttpServer]:
        weights = model.derived / f"model-{self._kind}.gguf"
        if not weights.is_file():
            weights.parent.mkdir(parents=True, exist_ok=True)
            write_gguf(model.folder, weights, self._kind)
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [str(BINARY), "-m", str(weights), *OPTIONS, "--port", str(port)]
        log = model.derived / f"llama-{self._kind}.log"
        with server_process(self.name, command, {}, log, f"{url}/health") as pid:
            yield HttpServer(pid, Target(f"{url}/v1", "model"))
