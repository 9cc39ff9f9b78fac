"""The GPUs of this machine, as the backend sees them: what there is, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch

_DRIVER = Path("/proc/driver/nvidia/version")

Collectives = Literal["nccl", "gloo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """`free_bytes` of `memory_bytes` are nobody's yet. `capability` is (major, minor)."""

    name: str
    memory_bytes: int
    free_bytes: int
    capability: tuple[int, int]

    @property
    def has_bf16(self) -> bool:
        """Whether it multiplies bfloat16 matrices, and torch's attention kernels run on it."""
        return self.capability >= (8, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`reason` says why there are no `gpus`; `driver` is its version where the system tells."""

    gpus: tuple[Gpu, ...] = ()
    reason: str = ""
    driver: str = ""


class Devices(Protocol):
    """Where models run. A test puts the CPU in the place of GPUs."""

    @property
    def collectives(self) -> Collectives:
        """How processes with a device each speak to each other."""

    def find(self) -> Found:
        """What is there. Never raises."""

    def device(self, rank: int) -> torch.device:
        """The device of the process of that rank."""


class CudaDevices:
    """What torch sees, which CUDA_VISIBLE_DEVICES bounds."""

    collectives: Collectives = "nccl"

    def find(self) -> Found:
        driver = _driver()
        if torch.version.cuda is None:
            return Found(
                reason=(
                    f"torch {torch.__version__} is built without CUDA; install a build with it "
                    "from PyTorch's index"
                ),
                driver=driver,
            )
        try:
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
            gpus = tuple(_gpu(index) for index in range(count))
        except (RuntimeError, AssertionError) as error:
            return Found(reason=f"CUDA cannot be used: {error}", driver=driver)
        if gpus:
            return Found(gpus=gpus, driver=driver)
        with_driver = f" (the driver is {driver})" if driver else ", and no NVIDIA driver"
        return Found(reason=f"there is no GPU that torch can use{with_driver}", driver=driver)

    def device(self, rank: int) -> torch.device:
        return torch.device("cuda", rank)


def _gpu(index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return Gpu(
        name=properties.name,
        memory_bytes=total,
        free_bytes=free,
        capability=(properties.major, properties.minor),
    )


def _driver() -> str:
    """The version of the kernel's driver, or nothing where there is none."""
    try:
        first = _DRIVER.read_text().splitlines()[0]
    except (OSError, IndexError):
        return ""
    numbers = [word for word in first.split() if word.replace(".", "").isdigit() and "." in word]
    return numbers[0] if numbers else ""
