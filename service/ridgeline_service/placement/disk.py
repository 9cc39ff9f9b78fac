"""Room on this machine's disk: whether something fits beside a reserve that the service keeps.

Knows neither models nor jobs: whoever writes says what it is, and what becomes of it.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ridgeline_service.placement.machine import in_gib

RESERVE_BYTES = 256 << 20
"""For the service's own rows and logs."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a full disk, and of a quota that is used up."""


class NoRoom(Exception):
    """Something does not fit on the disk. ``message`` is a sentence that names it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def check_room(into: Path, size: int, what: str) -> None:
    """Raises NoRoom if ``size`` bytes do not fit into a folder, which need not be there yet."""
    free = _free(into)
    if size > free:
        raise NoRoom(
            f"{what} has {in_gib(size)} and the service's disk has {in_gib(max(0, free))} free."
        )


def check_reserve(into: Path, what: str) -> None:
    """Raises NoRoom if the reserve is not whole any more. For a folder that a command writes into,
    of which it is not known how much that will be."""
    if _free(into) < 0:
        raise NoRoom(
            f"{what} does not fit on the service's disk, of which the service keeps "
            f"{RESERVE_BYTES >> 20} MiB for its own rows and logs."
        )


def room_kept(into: Path, what: str, reserve: int = RESERVE_BYTES) -> Callable[[int], None]:
    """To be told the size of each piece that is written into a folder, where the whole is not known
    before; raises NoRoom at the first piece that would take of the reserve."""
    written = 0

    def took(count: int) -> None:
        nonlocal written
        if count > _free(into, reserve):
            raise NoRoom(
                f"{what} does not fit on the service's disk, which is full after "
                f"{written >> 20} MiB of it."
            )
        written += count

    return took


@contextmanager
def full_disk_named(what: str) -> Iterator[None]:
    """What free bytes do not foretell, such as a quota or files without number, as NoRoom."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise NoRoom(f"{what} does not fit on the service's disk: {error.strerror}.") from error


def _free(into: Path, reserve: int = RESERVE_BYTES) -> int:
    place = into
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free - reserve
