"""Addresses of a core's device memory, handed out and given back."""

from __future__ import annotations

from bisect import insort

from ridgeline_backends.errors import BackendError

ALIGNMENT = 64
"""Addresses are multiples of what one DMA element moves (source DM)."""


def aligned(size: int) -> int:
    """What so many bytes take."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class OutOfDeviceMemory(BackendError):
    """An allocation that finds no free stretch of its size: the runtime's status 4."""

    code = "OutOfDeviceMemory"
    http_status = 400


class DeviceHeap:
    """First fit by address. `peak` is the highest byte that was ever in use."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used: list[tuple[int, int]] = []
        self.peak = 0

    def take(self, size: int) -> int:
        """An address. Raises `OutOfDeviceMemory`."""
        size = aligned(max(size, 1))
        begin = 0
        for low, high in self._used:
            if low - begin >= size:
                break
            begin = high
        if begin + size > self._limit:
            raise OutOfDeviceMemory(
                f'status=4 message="Allocation Failure": {size} bytes find no room in '
                f"{self._limit} of device memory, {self.in_use} of which are in use."
            )
        insort(self._used, (begin, begin + size))
        self.peak = max(self.peak, begin + size)
        return begin

    def give_back(self, address: int) -> None:
        self._used = [one for one in self._used if one[0] != address]

    @property
    def in_use(self) -> int:
        return sum(high - low for low, high in self._used)
