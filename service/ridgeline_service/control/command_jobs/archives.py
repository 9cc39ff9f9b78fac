"""Archives that users give: opened and unpacked, with what is wrong with one in a sentence."""

from __future__ import annotations

import lzma
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from ridgeline_service.control.command_jobs.life import CommandFailed
from ridgeline_service.objects.reading import S3Reader, parse_uri

_FAULTS = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)


@contextmanager
def opened(path: Path, uri: str, what: str) -> Iterator[tarfile.TarFile]:
    """The archive that was fetched from ``uri``, ``what`` being what it is to hold. Raises
    CommandFailed, also for what fails while it is read."""
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(tarfile.open(path))
        except _FAULTS as error:
            raise CommandFailed(f"ClientError: {uri} is no .tar.gz archive of {what}.") from error
        try:
            yield archive
        except _FAULTS as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise CommandFailed(f"ClientError: {uri} cannot be unpacked: {said}.") from error


def unpack(path: Path, into: Path, uri: str, what: str, check: Callable[[], None]) -> None:
    """All of it. ``check`` is called for each member; what it raises ends this. Raises as
    `opened`."""

    def members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        for member in archive:
            check()
            yield member

    with opened(path, uri, what) as archive:
        archive.extractall(into, members(archive), filter="data")


def files_of(
    reader: S3Reader, uri: str, what: str, check: Callable[[], None]
) -> Iterator[tuple[str, IO[bytes]]]:
    """The name, without folders, and the content of each file of an archive in S3. Raises S3Failed
    and as `opened`; ``check`` as in `unpack`."""
    bucket, key = parse_uri(uri)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "archive.tar.gz"
        reader.download(bucket, key, path, lambda _: check())
        with opened(path, uri, what) as archive:
            for member in archive:
                check()
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    yield Path(member.name).name, file
