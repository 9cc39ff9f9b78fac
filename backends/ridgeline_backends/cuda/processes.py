"""The other processes of a tensor-parallel model: what they are told at their start, and their end.

A worker is `python -m ridgeline_backends.cuda.worker ORDER`: an order is JSON, what follows it are
the steps of `Group`. A worker whose leader is gone ends by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch._C._distributed_c10d import TCPStore

from ridgeline_backends.base import Artifact, Dtype, LoadSpec, MemoryNeed, Plan
from ridgeline_backends.cuda.devices import Collectives
from ridgeline_backends.cuda.group import Group

_HOST = "127.0.0.1"
_END_S = 20.0


@dataclass(frozen=True, slots=True)
class Order:
    """What one worker is to be. `device` is its name in torch."""

    artifact: Artifact
    rank: int
    size: int
    port: int
    device: str
    collectives: Collectives

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "artifact": _plain(self.artifact)})

    @classmethod
    def from_json(cls, text: str) -> Order:
        values = json.loads(text)
        return cls(**{**values, "artifact": _artifact(values["artifact"])})

    def join(self) -> Group:
        """Meet the others. Waits for all of them."""
        store = TCPStore(_HOST, self.port, self.size, is_master=False)
        return Group(self.rank, self.size, collectives=self.collectives, store=store)


class Crew:
    """A leader's group and the workers it has started."""

    def __init__(
        self, artifact: Artifact, devices: list[torch.device], collectives: Collectives
    ) -> None:
        size = len(devices)
        store = TCPStore(_HOST, 0, size, is_master=True, wait_for_workers=False)
        orders = [
            Order(artifact, rank, size, store.port, str(devices[rank]), collectives)
            for rank in range(1, size)
        ]
        self._workers = [
            subprocess.Popen(
                [sys.executable, "-m", "ridgeline_backends.cuda.worker", order.to_json()]
            )
            for order in orders
        ]
        self.group = Group(0, size, collectives=collectives, store=store)

    def check(self) -> None:
        """Raises RuntimeError if a worker has ended: it would be waited for in vain."""
        for rank, worker in enumerate(self._workers, start=1):
            if worker.poll() is not None:
                raise RuntimeError(
                    f"process {rank} of the tensor-parallel model has ended with "
                    f"{worker.returncode}; see the log, and restart the replica"
                )

    def close(self) -> None:
        if all(worker.poll() is None for worker in self._workers):
            self.group.dismiss()
        for worker in self._workers:
            try:
                worker.wait(_END_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self.group.close()


def _plain(artifact: Artifact) -> dict[str, object]:
    return {
        "model_dir": str(artifact.model_dir),
        "plan": asdict(artifact.plan),
        "key": artifact.key,
    }


def _artifact(values: dict[str, object]) -> Artifact:
    plan = values["plan"]
    assert isinstance(plan, dict)
    typed = {
        "dtype": Dtype(plan["dtype"]),
        "spec": LoadSpec(**plan["spec"]),
        "memory": MemoryNeed(**plan["memory"]),
        "refusals": tuple(plan["refusals"]),
        "notes": tuple(plan["notes"]),
    }
    return Artifact(Path(str(values["model_dir"])), Plan(**{**plan, **typed}), str(values["key"]))
