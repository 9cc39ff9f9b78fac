"""Reading files that user code wrote, without being led out of its room.

The script may put a link in the place of any file or folder, also while we read. So everything is
opened one step at a time from a folder that is held open, and no link is ever followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_LINKS = 40  # as Linux has it


@dataclass(frozen=True)
class Found:
    """A file, a symbolic link or an empty folder below a folder; ``path`` is relative to it.
    ``folder`` is the open folder that holds it, only until the walk goes on."""

    path: str
    inode: int
    size: int
    modified_ns: int
    mode: int
    link: str | None
    folder: int
    is_folder: bool = False

    def open(self) -> BinaryIO | None:
        """None if it is gone or something else by now."""
        return open_regular(self.folder, os.path.basename(self.path))


@contextmanager
def opened_below(root: Path, relative: str) -> Iterator[int | None]:
    """A folder below ``root``, held open; None if it is not there or was replaced by a link."""
    handle = os.open(root, _FOLDER)
    try:
        for part in relative.split("/"):
            try:
                inner = os.open(part, _FOLDER, dir_fd=handle)
            except OSError:
                yield None
                return
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def files_below(folder: int, *, empty_folders: bool = False) -> Iterator[Found]:
    """Regular files and links below an open folder, by path, and ``empty_folders`` if they are
    asked for; sockets, pipes and devices are left out."""
    found = os.fwalk(".", dir_fd=folder, follow_symlinks=False)
    for parent, names, files, inner in found:
        names.sort()
        base = parent.removeprefix(".").lstrip("/")
        if empty_folders and base and not names and not files:
            yield _found(base, os.fstat(inner), None, inner, is_folder=True)
        links = [name for name in names if _is_link(inner, name)]
        for name in sorted([*files, *links]):
            try:
                status = os.stat(name, dir_fd=inner, follow_symlinks=False)
                is_link = stat.S_ISLNK(status.st_mode)
                link = os.readlink(name, dir_fd=inner) if is_link else None
            except FileNotFoundError:
                continue
            if link is None and not stat.S_ISREG(status.st_mode):
                continue
            yield _found(f"{base}/{name}" if base else name, status, link, inner)


def resolved_below(root: Path, path: str, inside: str) -> str | None:
    """Where ``path`` leads below ``root``, its links followed as the script does that sees ``root``
    at ``inside``; None if that is outside, or the links go round in a circle. Outside no link is
    looked at."""
    base = inside.strip("/").split("/")
    done, ahead, links = list(base), path.split("/"), 0
    while ahead:
        part = ahead.pop(0)
        below = done[len(base) :] if done[: len(base)] == base else None
        if part == "..":
            done = done[:-1]
        elif part not in ("", "."):
            link = None if below is None else _link_at(root, "/".join(below) or ".", part)
            if link is None:
                done.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                return None
            if link.startswith("/"):
                done = []
            ahead = [*link.split("/"), *ahead]
    return "/".join(done[len(base) :]) if done[: len(base)] == base else None


def open_regular(folder: int, name: str) -> BinaryIO | None:
    """A regular file in an open folder, for reading."""
    try:
        handle = os.open(name, _FILE, dir_fd=folder)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    return os.fdopen(handle, "rb")


def read_small(folder: int, name: str, limit: int) -> bytes:
    """The beginning of a regular file; empty if there is none."""
    file = open_regular(folder, name)
    if file is None:
        return b""
    with file:
        return file.read(limit)


def _link_at(root: Path, folder: str, name: str) -> str | None:
    """What a link says; None for anything else, and for nothing."""
    with opened_below(root, folder) as handle:
        try:
            return None if handle is None else os.readlink(name, dir_fd=handle)
        except OSError:
            return None


def _is_link(folder: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _found(
    path: str, status: os.stat_result, link: str | None, folder: int, *, is_folder: bool = False
) -> Found:
    return Found(
        path=path,
        inode=status.st_ino,
        size=status.st_size,
        modified_ns=status.st_mtime_ns,
        mode=stat.S_IMODE(status.st_mode),
        link=link,
        folder=folder,
        is_folder=is_folder,
    )
