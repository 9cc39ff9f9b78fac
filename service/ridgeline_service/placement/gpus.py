"""The NVIDIA GPUs that replicas on this machine can use, and who uses which. Loads no CUDA."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock

_DEV = Path("/dev")


def usable_gpus(dev: Path = _DEV, torch_version: str | None = None) -> int:
    """How many GPUs have a device file, if the torch that is installed here can use any."""
    if torch_version is None:
        try:
            torch_version = version("torch")
        except PackageNotFoundError:
            return 0
    return 0 if torch_version.endswith("+cpu") else len(_numbered(dev))


def gpu_files(dev: Path = _DEV) -> tuple[Path, ...]:
    """What a process must see to use GPUs: which of them is CUDA_VISIBLE_DEVICES' to say."""
    names = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-caps")
    shared = (dev / name for name in names if (dev / name).exists())
    return (*_numbered(dev), *shared)


class GpuShares:
    """Gives each replica the GPUs that the fewest others have. Thread-safe.

    It knows the replicas that it was asked about: after a restart of the control plane, those that
    live on keep what they have, and newer ones may share it. A backend plans with free memory.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: dict[str, tuple[int, ...]] = {}
        self._lock = Lock()

    def take(self, replica_id: str, wanted: int) -> tuple[int, ...]:
        """Numbers of GPUs, as many as wanted or as there are."""
        with self._lock:
            self._held.pop(replica_id, None)
            taken = [number for numbers in self._held.values() for number in numbers]
            order = sorted(range(self._count), key=lambda number: (taken.count(number), number))
            self._held[replica_id] = tuple(sorted(order[:wanted]))
            return self._held[replica_id]

    def give_back(self, replica_id: str) -> None:
        with self._lock:
            self._held.pop(replica_id, None)


def _numbered(dev: Path) -> list[Path]:
    found = (path for path in dev.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit())
    return sorted(found, key=lambda path: int(path.name.removeprefix("nvidia")))
