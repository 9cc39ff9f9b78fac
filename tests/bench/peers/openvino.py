"""OpenVINO GenAI's continuous batching, in process. It reads GGUF, but no bf16: f16 it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gguf_model import write_gguf

from peers.base import ENVIRONMENTS, Model, Peer
from peers.in_process import Driver, driver_process

PYTHON = ENVIRONMENTS / "openvino" / "bin" / "python"
DRIVER = Path(__file__).parents[1] / "drivers" / "openvino_driver.py"


class OpenVino(Peer):
    def __init__(self, kind: str) -> None:
        self.name = f"OpenVINO {kind}"
        self.command = f"python drivers/openvino_driver.py model-{kind}.gguf 2 (in process)"
        self._kind = kind

    def missing(self) -> str | None:
        return None if PYTHON.is_file() else "not installed; install_peers.py openvino installs it"

    @contextmanager
    def start(self, model: Model) -> Iterator[Driver]:
        weights = model.derived / f"model-{self._kind}.gguf"
        if not weights.is_file():
            weights.parent.mkdir(parents=True, exist_ok=True)
            write_gguf(model.folder, weights, self._kind)
        log = model.derived / f"openvino-{self._kind}.log"
        with driver_process(self.name, PYTHON, [str(DRIVER), str(weights), "2"], log) as driver:
            yield driver
