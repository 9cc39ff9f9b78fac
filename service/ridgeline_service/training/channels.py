"""Input channels: which objects of S3 an instance gets, at which paths, and the download of them.

FastFile channels come here only where files cannot be fetched when they are opened (``lazy.py``):
they are downloaded like File channels then, and the start waits for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ridgeline_service.objects.reading import S3Failed, S3Object, S3Reader, parse_uri
from ridgeline_service.placement.disk import NoRoom, check_room
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.order import Channel

_DOWNLOADS = 8
_LONGEST_NAME = 255
"""Bytes of a file's name, on any file system of Linux."""


@dataclass(frozen=True)
class Wanted:
    """One object and where it goes, relative to the channel's folder."""

    bucket: str
    item: S3Object
    path: str


def stage(
    channel: Channel,
    reader: S3Reader,
    into: Path,
    *,
    host: int,
    hosts: int,
    took: Callable[[int], None],
) -> int:
    """Download what host number ``host`` of ``hosts`` gets of a channel; returns the bytes.

    ``took`` is told of every piece; what it raises ends the download. Raises JobFailed.
    """
    with named(channel):
        wanted = contents(channel, reader, host=host, hosts=hosts)
        total = sum(each.item.size for each in wanted)
        check_room(into, total, channel.title)
        into.mkdir(parents=True, exist_ok=True)
        _download(wanted, reader, into, took)
    return total


def contents(channel: Channel, reader: S3Reader, *, host: int, hosts: int) -> list[Wanted]:
    """What host number ``host`` of ``hosts`` gets of a channel. Raises JobFailed or S3Failed."""
    wanted = share_of(objects_of(channel, reader), channel, host=host, hosts=hosts)
    check_paths(wanted, channel.title)
    return wanted


@contextmanager
def named(channel: Channel) -> Iterator[None]:
    """What S3 and the disk say of a channel, as JobFailed."""
    try:
        yield
    except NoRoom as error:
        raise JobFailed(Cause.DISK_FULL, error.message) from error
    except S3Failed as error:
        cause = Cause.DATA_UNREACHABLE if error.retry else Cause.DATA_INVALID
        raise JobFailed(cause, f"{channel.title}: {error.message}") from error


def objects_of(channel: Channel, reader: S3Reader) -> list[Wanted]:
    """All objects of a channel by key, for all instances. Raises JobFailed or S3Failed."""
    if channel.data_type == "ManifestFile":
        return _manifest(channel, reader)
    bucket, prefix = parse_uri(channel.uri)
    found = reader.list(channel.uri)
    if not found:
        raise JobFailed(
            Cause.DATA_INVALID,
            f"Data download failed: no S3 objects found under {channel.uri}, given for "
            f"{channel.title[0].lower()}{channel.title[1:]}. Upload the data there, or correct its "
            "S3Uri.",
        )
    return [Wanted(bucket, item, relative_path(prefix, item.key)) for item in found]


def relative_path(prefix: str, key: str) -> str:
    """Where the object of a prefix goes: below the prefix if that names a folder, and under its own
    name if it names the object or the beginning of some names."""
    if key.startswith(folder := f"{prefix.rstrip('/')}/") and prefix:
        return key.removeprefix(folder)
    return key[prefix.rfind("/") + 1 :]


def share_of(wanted: Sequence[Wanted], channel: Channel, *, host: int, hosts: int) -> list[Wanted]:
    """What one of several instances gets."""
    if channel.distribution != "ShardedByS3Key":
        return list(wanted)
    return [each for number, each in enumerate(wanted) if number % hosts == host]


def check_paths(wanted: Sequence[Wanted], who: str) -> None:
    """Raises JobFailed for keys that cannot be files of their own below one folder."""
    files: dict[tuple[str, ...], Wanted] = {}
    for each in wanted:
        parts = PurePosixPath(each.path).parts
        if not parts or ".." in parts or each.path.startswith("/") or "\0" in each.path:
            raise JobFailed(
                Cause.DATA_INVALID, f"{who}: the key {each.item.key!r} leads out of its folder."
            )
        if any(len(part.encode(errors="surrogatepass")) > _LONGEST_NAME for part in parts):
            raise JobFailed(
                Cause.DATA_INVALID,
                f"{who}: the key {each.item.key!r} has a part between slashes of more than "
                f"{_LONGEST_NAME} bytes, which no file can have as its name. Give it a shorter "
                "one.",
            )
        other = files.setdefault(parts, each)
        if other is not each:
            raise JobFailed(
                Cause.DATA_INVALID,
                f"{who}: the keys {other.item.key!r} and {each.item.key!r} would both be the file "
                f"{each.path!r}. Rename one of them, or end an S3Uri that means a folder with /.",
            )
    for parts in files:
        for length in range(1, len(parts)):
            if parts[:length] in files:
                both = "/".join(parts[:length])
                raise JobFailed(
                    Cause.DATA_INVALID,
                    f"{who}: {both!r} is an object and a folder of others, which no file system "
                    "can hold. Rename one of them.",
                )


def _manifest(channel: Channel, reader: S3Reader) -> list[Wanted]:
    what = f"The manifest {channel.uri} of channel {channel.name!r}"
    try:
        entries = json.loads(reader.read(channel.uri))
        head, *names = entries
        base = head["prefix"]
        if not isinstance(base, str) or not all(isinstance(name, str) for name in names):
            raise TypeError("keys must be text")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise JobFailed(
            Cause.DATA_INVALID,
            f"{what} cannot be read ({error}). It is a JSON list: first "
            '{"prefix": "s3://BUCKET/PREFIX/"}, then keys relative to that.',
        ) from error
    bucket, prefix = parse_uri(base)
    found = []
    for name in sorted(set(names)):
        item = reader.head(f"s3://{bucket}/{prefix}{name}")
        # A prefix without a slash at its end, and names that begin with it, are one key together.
        found.append(Wanted(bucket, item, name.removeprefix("/")))
    if not found:
        raise JobFailed(Cause.DATA_INVALID, f"{what} names no objects.")
    return found


def _download(
    wanted: Sequence[Wanted], reader: S3Reader, into: Path, took: Callable[[int], None]
) -> None:
    def fetch(each: Wanted) -> None:
        took(0)
        reader.download(each.bucket, each.item.key, into / each.path, took)

    if len(wanted) == 1:
        fetch(wanted[0])
        return
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        futures = [pool.submit(fetch, each) for each in wanted]
        try:
            for future in futures:
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            raise
