"""Objects on disk: blobs beside the index, so that either all of a write is seen or none of it.

Knows buckets, keys, parts and bytes; knows nothing of HTTP or signatures. Raises nanio's S3 errors.
Blobs are never changed once written: replacing an object writes a new blob and unlinks the old one
when its last reader is done. What a kill leaves unreferenced is swept at the next start.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from nanio.errors import (
    BucketAlreadyOwnedByYou,
    BucketNotEmpty,
    EntityTooSmall,
    InvalidArgument,
    InvalidPart,
    InvalidPartOrder,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    S3Error,
)
from nanio.keys import validate_bucket_name

from ridgeline_service.objects.conditions import ALWAYS, WriteCondition
from ridgeline_service.objects.index import (
    Index,
    Listing,
    Part,
    Segment,
    StoredObject,
    Upload,
)
from ridgeline_service.objects.room import room_for_object

CHUNK = 1024 * 1024
_ORPHAN_AGE_S = 3600.0
_MIN_PART = 5 * 1024 * 1024

T = TypeVar("T")


@dataclass(frozen=True)
class Blob:
    """Bytes that are on disk and that no row refers to yet."""

    blob_id: str
    size: int
    md5: str


class ObjectStore:
    """One folder. Call from one event loop; writes are serialised on a thread of their own."""

    def __init__(
        self,
        root: Path,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self.root = root
        self._blobs = root / "blobs"
        self._clock = clock
        self._new_id = new_id
        self._pins: Counter[str] = Counter()
        self._doomed: set[str] = set()
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._index = Index(root / "index.db")
        self._reader = Index(root / "index.db", readonly=True)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._sweep()

    def close(self) -> None:
        self._writer.shutdown()
        self._reader.close()
        self._index.close()

    # Buckets

    def buckets(self) -> list[tuple[str, float]]:
        return self._reader.buckets()

    def require_bucket(self, bucket: str) -> None:
        if not self._reader.has_bucket(bucket):
            raise NoSuchBucket(resource=bucket)

    async def create_bucket(self, bucket: str, *, again: bool) -> None:
        """``again``: creating one that is there succeeds, as it does in us-east-1."""
        validate_bucket_name(bucket)
        if not await self._write(self._index.create_bucket, bucket, self._clock()) and not again:
            raise BucketAlreadyOwnedByYou(resource=bucket)

    async def delete_bucket(self, bucket: str) -> None:
        self.require_bucket(bucket)
        freed = await self._write(self._index.delete_bucket, bucket)
        if freed is None:
            raise BucketNotEmpty(resource=bucket)
        self._free(freed)

    # Objects

    def head(self, bucket: str, key: str) -> StoredObject:
        found = self._reader.get(bucket, key)
        if found is None:
            self.require_bucket(bucket)
            raise NoSuchKey(resource=key)
        return found

    async def put(
        self,
        bucket: str,
        key: str,
        blob: Blob,
        headers: dict[str, str],
        condition: WriteCondition = ALWAYS,
    ) -> StoredObject:
        """Make the blob an object."""
        segments = (Segment(blob.blob_id, blob.size),) if blob.size else ()
        stored = StoredObject(key, segments, blob.size, blob.md5, self._clock(), headers)
        await self._replace(bucket, stored, [blob.blob_id], condition)
        if not blob.size:
            self._free([blob.blob_id])
        return stored

    async def copy(
        self,
        source: StoredObject,
        bucket: str,
        key: str,
        headers: dict[str, str] | None,
        condition: WriteCondition = ALWAYS,
    ) -> StoredObject:
        """Copy by hard links: no byte is read. ``headers`` None keeps the source's."""
        segments = []
        with self.pinned(source):
            for segment in source.segments:
                blob_id, path = self._new_path()
                await asyncio.to_thread(os.link, self._path(segment.blob), path)
                segments.append(Segment(blob_id, segment.size))
        stored = replace(
            source,
            key=key,
            segments=tuple(segments),
            modified=self._clock(),
            headers=source.headers if headers is None else headers,
        )
        blobs = [segment.blob for segment in segments]
        await self._replace(bucket, stored, blobs, condition)
        return stored

    async def delete(
        self, bucket: str, wanted: list[tuple[str, WriteCondition]]
    ) -> list[S3Error | None]:
        """For each key why it was kept, or None: it is gone, as it may have been before."""
        self.require_bucket(bucket)
        checks = [(key, condition.check) for key, condition in wanted]
        freed, refusals = await self._write(self._index.delete, bucket, checks)
        self._free(freed)
        return refusals

    def page(self, bucket: str, *, prefix: str, delimiter: str, after: str, limit: int) -> Listing:
        self.require_bucket(bucket)
        if limit == 0:
            return Listing((), (), None)
        return self._reader.page(
            bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit
        )

    # Multipart uploads

    async def create_upload(self, bucket: str, key: str, headers: dict[str, str]) -> Upload:
        self.require_bucket(bucket)
        upload = Upload(self._new_id(), bucket, key, self._clock(), headers)
        await self._write(self._index.create_upload, upload)
        return upload

    def upload(self, upload_id: str, bucket: str, key: str) -> Upload:
        found = self._reader.upload(upload_id)
        if found is None or (found.bucket, found.key) != (bucket, key):
            raise NoSuchUpload(resource=upload_id)
        return found

    def uploads(self, bucket: str) -> list[Upload]:
        self.require_bucket(bucket)
        return self._reader.uploads(bucket)

    def parts(self, upload: Upload) -> list[Part]:
        return self._reader.parts(upload.upload_id)

    async def put_part(self, upload: Upload, number: int, blob: Blob) -> Part:
        if not 1 <= number <= 10_000:
            self._free([blob.blob_id])
            raise InvalidArgument(f"Part number must be from 1 to 10000, got {number}")
        part = Part(number, Segment(blob.blob_id, blob.size), blob.md5, self._clock())
        freed = await self._write(self._index.put_part, upload.upload_id, part)
        if freed is None:
            self._free([blob.blob_id])
            raise NoSuchUpload(resource=upload.upload_id)
        self._free(freed)
        return part

    def assembled(self, upload: Upload, wanted: list[tuple[int, str]]) -> StoredObject:
        """The object that parts by number and ETag, as the client lists them, would become."""
        if not wanted:
            raise InvalidPart("The list of parts is empty")
        if [number for number, _ in wanted] != sorted({number for number, _ in wanted}):
            raise InvalidPartOrder()
        held = {part.number: part for part in self.parts(upload)}
        chosen = []
        for number, etag in wanted:
            part = held.get(number)
            if part is None or part.md5 != etag.strip('"'):
                raise InvalidPart(f"Part {number} with ETag {etag} was not uploaded")
            chosen.append(part)
        for part in chosen[:-1]:
            if part.segment.size < _MIN_PART:
                raise EntityTooSmall(
                    f"Part {part.number} has {part.segment.size} bytes: every part but the last "
                    f"must have {_MIN_PART} or more."
                )
        digest = hashlib.md5(
            b"".join(bytes.fromhex(part.md5) for part in chosen), usedforsecurity=False
        )
        return StoredObject(
            key=upload.key,
            segments=tuple(part.segment for part in chosen if part.segment.size),
            size=sum(part.segment.size for part in chosen),
            etag=f"{digest.hexdigest()}-{len(chosen)}",
            modified=self._clock(),
            headers=upload.headers,
        )

    async def complete(
        self,
        upload: Upload,
        wanted: list[tuple[int, str]],
        condition: WriteCondition = ALWAYS,
    ) -> StoredObject:
        """The parts become the object. An upload that ``condition`` refuses stays, to be completed
        again or aborted."""
        stored = self.assembled(upload, wanted)
        freed = await self._write(
            self._index.complete, upload.upload_id, upload.bucket, stored, condition.check
        )
        if freed is None:
            self.require_bucket(upload.bucket)
            raise NoSuchUpload(resource=upload.upload_id)
        self._free(freed)
        return stored

    async def abort(self, upload: Upload) -> None:
        self._free(await self._write(self._index.abort, upload.upload_id))

    # Bytes

    async def write_blob(self, chunks: AsyncIterator[bytes]) -> Blob:
        """Take all of ``chunks`` to disk. If they end in an error, nothing stays behind. Raises
        StorageFull, before it asks for the first one if there is no room at all."""
        took = room_for_object(self.root)
        took(0)
        blob_id, path = self._new_path()
        digest = hashlib.md5(usedforsecurity=False)
        size = 0
        waiting: list[bytes] = []
        gathered = 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

        def flush(*, last: bool) -> None:
            data = b"".join(waiting)
            took(len(data))
            digest.update(data)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if last:
                os.fsync(descriptor)

        try:
            async for chunk in chunks:
                waiting.append(chunk)
                gathered += len(chunk)
                if gathered >= CHUNK:
                    await asyncio.to_thread(flush, last=False)
                    size += gathered
                    waiting, gathered = [], 0
            await asyncio.to_thread(flush, last=True)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return Blob(blob_id, size + gathered, digest.hexdigest())

    def discard(self, blob: Blob) -> None:
        self._free([blob.blob_id])

    async def read(self, stored: StoredObject, start: int, length: int) -> AsyncIterator[bytes]:
        """Bytes ``start`` to ``start + length``. The caller holds it ``pinned`` meanwhile."""
        for segment in stored.segments:
            if length <= 0:
                return
            if start >= segment.size:
                start -= segment.size
                continue
            take = min(segment.size - start, length)
            async for chunk in _read_file(self._path(segment.blob), start, take):
                yield chunk
            length -= take
            start = 0

    @contextmanager
    def pinned(self, stored: StoredObject) -> Iterator[None]:
        """Keep the bytes readable though the object is replaced or deleted meanwhile.

        Enter it before the first await after ``head``.
        """
        names = [segment.blob for segment in stored.segments]
        self._pins.update(names)
        try:
            yield
        finally:
            self._pins.subtract(names)
            done = [name for name in names if not self._pins[name]]
            for name in done:
                del self._pins[name]
            self._free([name for name in done if name in self._doomed])

    def _free(self, blobs: Iterable[str]) -> None:
        for blob in blobs:
            if self._pins[blob]:
                self._doomed.add(blob)
            else:
                self._doomed.discard(blob)
                self._path(blob).unlink(missing_ok=True)

    def _new_path(self) -> tuple[str, Path]:
        blob_id = self._new_id()
        path = self._path(blob_id)
        path.parent.mkdir(exist_ok=True)
        return blob_id, path

    def _path(self, blob_id: str) -> Path:
        return self._blobs / blob_id[:2] / blob_id

    def _sweep(self) -> None:
        """Unlink what nothing refers to, but young blobs: a store that drains may own them."""
        known = self._index.blobs()
        horizon = self._clock() - _ORPHAN_AGE_S
        for folder in os.scandir(self._blobs):
            for entry in os.scandir(folder.path):
                if entry.name not in known and entry.stat().st_mtime < horizon:
                    os.unlink(entry.path)

    async def _replace(
        self, bucket: str, stored: StoredObject, blobs: list[str], condition: WriteCondition
    ) -> None:
        """Put the object in its place, or free its ``blobs`` if it is refused."""
        try:
            freed = await self._write(self._index.put, bucket, stored, condition.check)
            if freed is None:
                raise NoSuchBucket(resource=bucket)
        except S3Error:
            self._free(blobs)
            raise
        self._free(freed)

    async def _write(self, action: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._writer, lambda: action(*arguments)
        )


async def _read_file(path: Path, start: int, length: int) -> AsyncIterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while length > 0:
            chunk = await asyncio.to_thread(os.pread, descriptor, min(CHUNK, length), start)
            if not chunk:
                raise OSError(f"{path} is shorter than its row says")
            yield chunk
            start += len(chunk)
            length -= len(chunk)
    finally:
        os.close(descriptor)
