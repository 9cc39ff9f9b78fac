"""The processor in the place of GPUs, so that the code for them is tested where there are none."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ridgeline_backends.cuda.devices import Collectives, Found, Gpu

GIB = 1 << 30

NEW = Gpu(name="New", memory_bytes=24 * GIB, free_bytes=23 * GIB, capability=(9, 0))
OLD = Gpu(name="Old", memory_bytes=16 * GIB, free_bytes=15 * GIB, capability=(7, 5))


@dataclass(frozen=True)
class HostDevices:
    """`Devices` of the processor. Blocks stay small: torch's kernels are not planned for `OLD`."""

    gpus: tuple[Gpu, ...] = (OLD,)
    reason: str = ""
    collectives: Collectives = "gloo"

    def find(self) -> Found:
        return Found(gpus=self.gpus, reason=self.reason, driver="570.1")

    def device(self, rank: int) -> torch.device:
        return torch.device("cpu")
