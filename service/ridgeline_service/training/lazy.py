"""FastFile channels: there at once, and each file is fetched when the script opens it first.

That takes a file system of our own (``fuse.py``), which only root may mount here; where it cannot
be, the channels are downloaded before the start, and the job's log says so.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ridgeline_service.objects.reading import S3Failed, S3Reader
from ridgeline_service.training import fuse
from ridgeline_service.training.channels import Wanted, contents, named
from ridgeline_service.training.order import Channel

FAST_FILE = "FastFile"


class LazyChannels:
    """``kept`` is where fetched files lie; ``say`` writes a line into the job's log."""

    def __init__(self, reader: S3Reader, kept: Path, say: Callable[[str], None]) -> None:
        self._reader = reader
        self._kept = kept
        self._say = say
        self._entered = False
        self._impossible = False

    def mount(self, channel: Channel, where: Path, *, host: int, hosts: int) -> bool:
        """Whether the channel's files are there now, for the calling thread and what it starts; if
        not, they have to be downloaded. Raises JobFailed for a channel without data."""
        if channel.mode != FAST_FILE or self._impossible:
            return False
        with named(channel):
            wanted = contents(channel, self._reader, host=host, hosts=hosts)
        files = {each.path: self._file(channel, each) for each in wanted}
        where.mkdir(parents=True, exist_ok=True)
        try:
            if not self._entered:
                fuse.enter_namespace()
                self._entered = True
            fuse.LazyFiles(files).mount(where)
        except OSError as error:
            self._impossible = True
            self._say(f"FastFile channels are downloaded before the start: {error}.")
        return not self._impossible

    def _file(self, channel: Channel, wanted: Wanted) -> fuse.LazyFile:
        kept = self._kept / channel.name / wanted.path
        return fuse.LazyFile(wanted.item.size, kept, partial(self._fetch, channel, wanted, kept))

    def _fetch(self, channel: Channel, wanted: Wanted, into: Path) -> None:
        """The script reads of a failure in its log, and gets an input/output error."""
        try:
            self._reader.download(wanted.bucket, wanted.item.key, into, _no_check)
        except S3Failed as error:
            self._say(f"{channel.title}: {error.message}")
            raise OSError(errno.EIO, error.message) from error


def _no_check(size: int) -> None:
    """The script is ended from outside, and with it whoever waits for the file."""
