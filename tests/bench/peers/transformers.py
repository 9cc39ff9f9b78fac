"""transformers with static batches, in process: what one has without a serving engine."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers.base import Model, Peer
from peers.in_process import Driver, driver_process

DRIVER = Path(__file__).parents[1] / "drivers" / "transformers_driver.py"


class Transformers(Peer):
    name = "transformers bf16, static batch"
    command = "python drivers/transformers_driver.py MODEL_DIR 2 (in process)"

    def missing(self) -> str | None:
        if importlib.util.find_spec("transformers") is None:
            return "not installed; pip install transformers"
        return None

    @contextmanager
    def start(self, model: Model) -> Iterator[Driver]:
        arguments = [str(DRIVER), str(model.folder), "2"]
        log = model.derived / "transformers.log"
        with driver_process(self.name, Path(sys.executable), arguments, log) as driver:
            yield driver
