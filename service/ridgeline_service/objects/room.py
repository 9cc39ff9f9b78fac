"""The room that objects leave on the disk, so that they can still be deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nanio.errors import S3Error

from ridgeline_service.placement.disk import RESERVE_BYTES, NoRoom, room_kept

_RESERVE_BYTES = RESERVE_BYTES // 2
"""Objects may go on where models and packages may not; but a deletion takes a row."""


class StorageFull(S3Error):  # type: ignore[misc]
    """Its status is none of those (500, 502, 503, 504) after which AWS's clients try again."""

    code = "InsufficientStorage"
    http_status = 507


def room_for_object(store: Path) -> Callable[[int], None]:
    """To be told the size of each piece before it is written; raises StorageFull."""
    kept = room_kept(store, "The object", _RESERVE_BYTES)

    def took(count: int) -> None:
        try:
            kept(count)
        except NoRoom as error:
            raise StorageFull(
                f"{error.message} Delete objects, or free some of the disk that {store} is on."
            ) from error

    return took
