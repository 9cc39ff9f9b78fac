"""What a job leaves behind: /opt/ml/model and /opt/ml/output/data, packed and uploaded."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig

from ridgeline_service.objects.reading import S3Failed, S3Reader
from ridgeline_service.training import layout
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.refused import Refused
from ridgeline_service.training.walking import (
    files_below,
    open_regular,
    opened_below,
    resolved_below,
)

_COMPRESSION = 1
_TRANSFER = TransferConfig(multipart_threshold=64 << 20, multipart_chunksize=32 << 20)


class Artifacts:
    """Uploads below ``uri``, the folder of the job's artifacts. Raises JobFailed."""

    def __init__(self, reader: S3Reader, uri: str, room: Path, title: str = "S3OutputPath") -> None:
        """``room`` is a folder on disk for what is being packed; ``title`` is what the user gave
        ``uri`` as."""
        self._title = title
        self._reader = reader
        self._uri = uri.rstrip("/")
        self._room = room
        self._refused = Refused()

    def check(self) -> None:
        """Find out before the work whether its result can be kept."""
        try:
            self._reader.check_bucket(self._uri)
        except S3Failed as error:
            if error.absent:
                raise self._no_bucket() from error
            cause = Cause.DATA_UNREACHABLE if error.retry else Cause.UPLOAD_FAILED
            raise JobFailed(cause, f"{self._title} {self._uri}: {error.message}") from error

    def upload(self, root: Path, folder: str, name: str, *, compress: bool) -> str:
        """``folder`` below ``root`` as ``name``.tar.gz, or as plain objects below ``name``/;
        returns where it lies. An empty one gives an empty archive."""
        with self._failures():
            if compress:
                return self._archive(root, folder, f"{self._uri}/{name}.tar.gz")
            return self._objects(root, folder, f"{self._uri}/{name}/")

    def upload_files(self, root: Path, folder: str) -> None:
        """The files of ``folder`` below ``root`` as plain objects."""
        with self._failures():
            self._objects(root, folder, f"{self._uri}/")

    def complete(self) -> None:
        """At the end of all uploads: raises JobFailed if single files could not be stored."""
        what = f"What the job made for {self._title}"
        failed = self._refused.failure(what, self._uri)
        if failed is not None:
            raise failed

    def _archive(self, root: Path, folder: str, uri: str) -> str:
        with tempfile.TemporaryFile(dir=self._room) as packed:
            with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=_COMPRESSION) as archive:
                _pack(archive, root, folder)
            packed.seek(0)
            self._put(packed, uri)
        return uri

    def _objects(self, root: Path, folder: str, uri: str) -> str:
        with opened_below(root, folder) as handle:
            for found in files_below(handle) if handle is not None else ():
                if found.link is None:
                    self._object(found.open(), found.path, uri)
                else:
                    self._linked(root, folder, found.path, found.link, uri)
        return uri

    def _linked(self, root: Path, folder: str, path: str, link: str, uri: str) -> None:
        """What a link leads to, under the link's name: S3 has no links."""
        own = f"{folder}/{path}"
        target = resolved_below(root, own, layout.INSIDE) or ""
        parent, _, name = target.rpartition("/")
        with opened_below(root, parent or ".") as place:
            file = open_regular(place, name) if place is not None and name else None
            if file is not None:
                return self._object(file, path, uri)
        with opened_below(root, target) as place:
            if place is None or own.startswith(f"{target}/"):
                return self._refused.leave_out(
                    path, f"a link to {link}, where no file of the job is"
                )
            for found in files_below(place):
                below = f"{path}/{found.path}"
                if found.link is None:
                    self._object(found.open(), below, uri)
                else:  # not followed as well: links may go round in a circle
                    self._refused.leave_out(below, "a link in a folder that is linked itself")
        return None

    def _object(self, file: BinaryIO | None, path: str, uri: str) -> None:
        """A file that may be gone by now."""
        if file is not None:
            with file:
                self._refused.put(path, partial(self._put, file, f"{uri}{path}"))

    def _put(self, file: BinaryIO, uri: str) -> None:
        self._reader.upload(file, uri, _TRANSFER)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        failed = f"What the job made could not be uploaded to {self._title} {self._uri}"
        try:
            yield
        except S3Failed as error:
            if error.absent:
                raise self._no_bucket() from error
            raise JobFailed(Cause.UPLOAD_FAILED, f"{failed}: {error.message}") from error
        except Boto3Error as error:
            raise JobFailed(Cause.UPLOAD_FAILED, f"{failed}: {error}") from error
        except OSError as error:
            message = f"What the job made could not be packed: {error}"
            raise JobFailed(Cause.DISK_FULL, message) from error

    def _no_bucket(self) -> JobFailed:
        return JobFailed(
            Cause.UPLOAD_FAILED,
            f"The bucket of {self._title} {self._uri} does not exist. Create it, or correct the "
            "path.",
        )


def is_empty(root: Path, folder: str) -> bool:
    with opened_below(root, folder) as handle:
        return handle is None or next(iter(files_below(handle)), None) is None


def _pack(archive: tarfile.TarFile, root: Path, folder: str) -> None:
    with opened_below(root, folder) as handle:
        for found in files_below(handle, empty_folders=True) if handle is not None else ():
            member = tarfile.TarInfo(found.path)
            member.mode = found.mode & 0o777
            member.mtime = found.modified_ns // 1_000_000_000
            if found.is_folder:
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
                continue
            if found.link is not None:
                member.type, member.linkname = tarfile.SYMTYPE, found.link
                archive.addfile(member)
                continue
            file = found.open()
            if file is not None:
                with file:
                    file.seek(0, 2)
                    member.size = file.tell()
                    file.seek(0)
                    archive.addfile(member, file)
