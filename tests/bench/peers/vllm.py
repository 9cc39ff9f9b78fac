"""vLLM's own server on its CPU backend.

In float32 where the processor has no bf16 instructions: there bf16 is many times slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from load import Target
from machine import describe_machine

from peers.base import ENVIRONMENTS, HttpServer, Model, Peer, free_port, server_process

BINARY = ENVIRONMENTS / "vllm" / "bin" / "vllm"
DTYPE = "bfloat16" if "avx512_bf16" in describe_machine().features else "float32"
OPTIONS = ("--dtype", DTYPE, "--max-model-len", "2048", "--max-num-seqs", "32")
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class Vllm(Peer):
    name = f"vLLM {DTYPE}"
    command = f"VLLM_CPU_KVCACHE_SPACE=2 vllm serve MODEL_DIR {' '.join(OPTIONS)}"

    def missing(self) -> str | None:
        return None if BINARY.is_file() else "not installed; install_peers.py vllm installs it"

    @contextmanager
    def start(self, model: Model) -> Iterator[HttpServer]:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [str(BINARY), "serve", str(model.folder), *OPTIONS]
        command += ["--served-model-name", "model", "--host", "127.0.0.1", "--port", str(port)]
        log = model.derived / "vllm.log"
        with server_process(self.name, command, SETTINGS, log, f"{url}/health") as pid:
            yield HttpServer(pid, Target(f"{url}/v1", "model"))
