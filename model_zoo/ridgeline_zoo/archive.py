"""Safe extraction of .tar, .tar.gz and .zip archives that came from outside.

Nothing is ever written outside the destination, and no link is ever made: a link to a file of
the archive becomes a copy of it, every other link is refused. That leaves an archive no way to
point anywhere. Sizes are counted as they are written, so a header cannot lie about them.
"""

from __future__ import annotations

import errno
import gzip
import os
import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from ridgeline_zoo.errors import UnsafeArchive

_CHUNK = 1 << 20
# A tar header (a long name, pax records) is read in one piece; a real one is far below this.
_LARGEST_HEADER = 1 << 24
# Links to links, as shared libraries have them.
_LONGEST_CHAIN = 8


@dataclass(frozen=True)
class Limits:
    """What one archive may unpack to."""

    max_bytes: int = 64 << 30
    max_entries: int = 100_000


@dataclass(frozen=True)
class Extracted:
    """Names of the files written, relative to the destination, and their bytes together."""

    files: tuple[str, ...]
    total_bytes: int


def extract_archive(
    archive: Path,
    destination: Path,
    *,
    limits: Limits | None = None,
    only: str | None = None,
    took: Callable[[int], None] | None = None,
) -> Extracted:
    """Unpack ``archive`` into ``destination`` (made if missing).

    ``only`` names one file, or with a trailing slash one folder, whose content then lands directly
    in the destination. Modes are reduced to "executable or not". ``took`` is told the size of each
    piece before it is written; what it raises ends the extraction. Raises UnsafeArchive naming the
    entry at fault; what was written before it stays, so extract into a folder you can drop.
    """
    destination.mkdir(parents=True, exist_ok=True)
    writer = _Writer(
        archive.name, destination.resolve(), limits or Limits(), only, took or _unasked
    )
    with archive.open("rb") as stream:
        magic = stream.read(4)
    with _damage_named(archive.name):
        if magic.startswith(b"PK"):
            _extract_zip(archive, writer)
        else:
            _extract_tar(archive, magic.startswith(b"\x1f\x8b"), writer)
    if only is not None and not writer.files:
        raise UnsafeArchive(f"{archive.name} has no entry {only!r}")
    return Extracted(tuple(sorted(writer.files)), writer.written)


class _Writer:
    """Turns entry names into paths inside the destination and counts what is written."""

    def __init__(
        self,
        archive: str,
        root: Path,
        limits: Limits,
        only: str | None,
        took: Callable[[int], None],
    ) -> None:
        self._archive = archive
        self._root = root
        self._limits = limits
        self._only = only
        self._took = took
        self._entries = 0
        self.written = 0
        self.files: set[str] = set()

    def admit(self, name: str) -> str | None:
        """The entry's place under the root; None if it is not wanted. Counts the entry."""
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise self.refuse(name, f"more than {self._limits.max_entries} entries")
        clean = self.normal(name, name)
        if self._only is None:
            return clean
        if self._only.endswith("/"):
            return clean.removeprefix(self._only) if clean.startswith(self._only) else None
        return posixpath.basename(clean) if clean == self._only else None

    def normal(self, path: str, entry: str) -> str:
        """``path`` without dots, refused if it is absolute or leaves the root."""
        if not path or "\0" in path or "\\" in path:
            raise self.refuse(entry, "its name is not a plain path")
        if path.startswith("/") or (len(path) > 1 and path[1] == ":"):
            raise self.refuse(entry, "its name is an absolute path")
        if ".." in path.split("/"):
            raise self.refuse(entry, "its name leads out of the folder")
        return posixpath.normpath(path)

    def link_target(self, entry: str, target: str, *, relative_to: str) -> str:
        """Name of the entry a link leads to; refused if that lies outside."""
        joined = posixpath.normpath(posixpath.join(relative_to, target))
        if target.startswith("/") or joined == ".." or joined.startswith("../"):
            raise self.refuse(entry, f"it is a link to {target!r}, outside the folder")
        return self.normal(joined, entry)

    def folder(self, place: str, entry: str) -> None:
        try:
            (self._root / place).mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise self.refuse(entry, "it is a folder where another entry is a file") from error
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise self.refuse(entry, "its name is too long for this disk") from error

    def file(self, place: str, entry: str, source: IO[bytes], executable: bool) -> None:
        path = self._root / place
        self.folder(posixpath.dirname(place), entry)
        try:
            out = path.open("wb")
        except IsADirectoryError as error:
            raise self.refuse(entry, "it is a file where another entry is a folder") from error
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise self.refuse(entry, "its name is too long for this disk") from error
        with out:
            while chunk := source.read(_CHUNK):
                self.written += len(chunk)
                if self.written > self._limits.max_bytes:
                    raise self.refuse(entry, f"more than {self._limits.max_bytes} bytes unpacked")
                self._took(len(chunk))
                out.write(chunk)
        path.chmod(0o755 if executable else 0o644)
        self.files.add(place)

    def copy(self, source: str, place: str, entry: str) -> None:
        """Write a file that was written before once more, under another name."""
        path = self._root / source
        with path.open("rb") as content:
            self.file(place, entry, content, bool(path.stat().st_mode & 0o100))

    def refuse(self, entry: str, reason: str) -> UnsafeArchive:
        return UnsafeArchive(
            f"{self._archive}: refused at the entry {entry!r}: {reason}",
            hint="Make the archive again from plain files and folders below one folder.",
        )


def _unasked(_size: int) -> None:
    """Whoever extracts does not ask for sizes."""


def _extract_tar(archive: Path, compressed: bool, writer: _Writer) -> None:
    links: dict[str, str] = {}
    wanted: list[tuple[str, str]] = []
    with _open_tar(archive, compressed) as tar:
        places: dict[str, str] = {}
        for member in tar:
            if member.isdir() and posixpath.normpath(member.name) == ".":
                continue
            place = writer.admit(member.name)
            name = posixpath.normpath(member.name)
            if member.issym() or member.islnk():
                base = posixpath.dirname(name) if member.issym() else ""
                target = writer.link_target(member.name, member.linkname, relative_to=base)
                links[name] = target
                if place is not None:
                    wanted.append((name, place))
            elif member.isdir():
                if place:
                    writer.folder(place, member.name)
            elif member.isreg():
                if place is not None:
                    places[name] = place
                    content = tar.extractfile(member)
                    if content is None:
                        raise writer.refuse(member.name, "it has no content")
                    writer.file(place, member.name, content, bool(member.mode & 0o100))
            else:
                raise writer.refuse(member.name, "it is a device, a pipe or of an unknown kind")
    for entry, place in wanted:
        target = entry
        for _ in range(_LONGEST_CHAIN):
            target = links.get(target, target)
        if target not in places:
            raise writer.refuse(entry, f"it is a link to {target!r}, no file of the archive")
        writer.copy(places[target], place, entry)


def _extract_zip(archive: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            place = writer.admit(info.filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise writer.refuse(info.filename, "it is a link or a device")
            if info.flag_bits & 1:
                raise writer.refuse(info.filename, "it is encrypted")
            if place is None:
                continue
            if info.is_dir():
                if place:
                    writer.folder(place, info.filename)
                continue
            with opened.open(info) as content:
                writer.file(place, info.filename, content, bool((info.external_attr >> 16) & 0o100))


class _BoundedReads:
    """A seekable stream that refuses one huge read: what a forged tar header asks for."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header asks for {size} bytes")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True


@contextmanager
def _open_tar(archive: Path, compressed: bool) -> Iterator[tarfile.TarFile]:
    with archive.open("rb") as raw:
        stream = gzip.GzipFile(fileobj=raw) if compressed else raw
        bounded = cast("IO[bytes]", _BoundedReads(stream))
        with tarfile.open(fileobj=bounded, mode="r:") as tar:
            yield tar


@contextmanager
def _damage_named(archive: str) -> Iterator[None]:
    """Every way in which a reader says "this is not an archive", as one typed error."""
    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        gzip.BadGzipFile,
        EOFError,
        NotImplementedError,  # a zip compression that Python cannot read
        UnicodeError,
        ValueError,  # tarfile lets the number parser's error through for a broken header
    ) as error:
        raise UnsafeArchive(
            f"{archive} is damaged, or no archive: {error}",
            hint="Expected .tar, .tar.gz or .zip; upload the file again.",
        ) from error
