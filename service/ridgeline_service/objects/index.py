"""Names, metadata and uploads of the object store, in one SQLite file.

Knows nothing of HTTP and never touches the blobs: it hands back the ids of blobs that no row refers
to any more, and the caller unlinks them. Not thread-safe: one connection, one thread at a time.
Keys sort by their UTF-8 bytes, as S3 lists them, which is SQLite's own order for text.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nanio.errors import S3Error

_SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL, key TEXT NOT NULL, segments TEXT NOT NULL, size INTEGER NOT NULL,
    etag TEXT NOT NULL, modified REAL NOT NULL, headers TEXT NOT NULL,
    PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL, created REAL NOT NULL,
    headers TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
    upload TEXT NOT NULL, number INTEGER NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL,
    md5 TEXT NOT NULL, modified REAL NOT NULL,
    PRIMARY KEY (upload, number)
) WITHOUT ROWID;
"""

# Greater than every key that starts with the text before it: U+10FFFF has the largest UTF-8 bytes.
_LAST = "\U0010ffff"


@dataclass(frozen=True)
class Segment:
    """A run of an object's bytes: one blob, whole. A multipart object has one a part."""

    blob: str
    size: int


@dataclass(frozen=True)
class StoredObject:
    """``etag`` has no quotes; ``headers`` are for the answer; ``modified`` is in epoch seconds."""

    key: str
    segments: tuple[Segment, ...]
    size: int
    etag: str
    modified: float
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def part_sizes(self) -> tuple[int, ...]:
        """Bytes of each part of a multipart upload; none if the object came whole."""
        _, _, count = self.etag.partition("-")
        sizes = tuple(segment.size for segment in self.segments)
        # A last part without bytes has no segment.
        return sizes + (0,) * (int(count) - len(sizes)) if count else ()


@dataclass(frozen=True)
class Upload:
    upload_id: str
    bucket: str
    key: str
    created: float
    headers: dict[str, str]


@dataclass(frozen=True)
class Part:
    number: int
    segment: Segment
    md5: str
    modified: float


@dataclass(frozen=True)
class Listing:
    """One page. ``resume`` is where the next page starts, None on the last one."""

    objects: tuple[StoredObject, ...]
    prefixes: tuple[str, ...]
    resume: str | None


Check = Callable[[str, StoredObject | None], None]
"""Is told a key and what is there, in the transaction that writes it; refuses by an S3Error."""


class Index:
    """The SQLite file. ``readonly`` connections see every committed write and never block one."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA busy_timeout = 10000")
        if readonly:
            self._db.execute("PRAGMA query_only = 1")
        else:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def buckets(self) -> list[tuple[str, float]]:
        return list(self._db.execute("SELECT name, created FROM buckets ORDER BY name"))

    def has_bucket(self, bucket: str) -> bool:
        row = self._db.execute("SELECT 1 FROM buckets WHERE name = ?", (bucket,)).fetchone()
        return row is not None

    def create_bucket(self, bucket: str, now: float) -> bool:
        """False if it was there."""
        cursor = self._db.execute("INSERT OR IGNORE INTO buckets VALUES (?, ?)", (bucket, now))
        return cursor.rowcount > 0

    def delete_bucket(self, bucket: str) -> list[str] | None:
        """Blobs of its unfinished uploads; None, and nothing done, while it holds objects."""
        with self._transaction():
            held = self._db.execute("SELECT 1 FROM objects WHERE bucket = ? LIMIT 1", (bucket,))
            if held.fetchone():
                return None
            uploads = self._db.execute("SELECT id FROM uploads WHERE bucket = ?", (bucket,))
            freed = [blob for (upload,) in uploads.fetchall() for blob in self._drop_upload(upload)]
            self._db.execute("DELETE FROM buckets WHERE name = ?", (bucket,))
            return freed

    def get(self, bucket: str, key: str) -> StoredObject | None:
        row = self._db.execute(
            "SELECT key, segments, size, etag, modified, headers FROM objects"
            " WHERE bucket = ? AND key = ?",
            (bucket, key),
        ).fetchone()
        return _object(row) if row else None

    def put(self, bucket: str, stored: StoredObject, check: Check) -> list[str] | None:
        """Blobs of the object that this one replaced; None, and nothing done, if the bucket has
        gone. Raises what ``check`` does, and nothing is done then either."""
        with self._transaction():
            return self._put(bucket, stored, check)

    def delete(
        self, bucket: str, wanted: list[tuple[str, Check]]
    ) -> tuple[list[str], list[S3Error | None]]:
        """Blobs of those that were there, and for each what its check raised, which keeps it."""
        freed: list[str] = []
        refusals: list[S3Error | None] = []
        with self._transaction():
            for key, check in wanted:
                old = self.get(bucket, key)
                try:
                    check(key, old)
                except S3Error as error:
                    refusals.append(error)
                    continue
                refusals.append(None)
                freed += [segment.blob for segment in old.segments] if old else []
                self._db.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key))
        return freed, refusals

    def page(self, bucket: str, *, prefix: str, delimiter: str, after: str, limit: int) -> Listing:
        """Up to ``limit`` objects and common prefixes behind ``after``, in key order."""
        objects: list[StoredObject] = []
        prefixes: list[str] = []
        last = ""
        while True:
            # One more than is wanted tells a full last page from a truncated one.
            wanted = limit - len(objects) - len(prefixes) + 1
            rows = self._db.execute(
                "SELECT key, segments, size, etag, modified, headers FROM objects"
                " WHERE bucket = ? AND key > ? AND key >= ? AND key < ? ORDER BY key LIMIT ?",
                (bucket, after, prefix, prefix + _LAST, wanted),
            )
            for row in rows:
                if len(objects) + len(prefixes) == limit:
                    return Listing(tuple(objects), tuple(prefixes), last)
                key = str(row[0])
                cut = key.find(delimiter, len(prefix)) if delimiter else -1
                if cut >= 0:
                    common = key[: cut + len(delimiter)]
                    prefixes.append(common)
                    # Skips all that the prefix stands for; the rows at hand are of it, so ask anew.
                    last = after = common + _LAST
                    rows.close()
                    break
                objects.append(_object(row))
                last = after = key
            else:
                return Listing(tuple(objects), tuple(prefixes), None)

    def create_upload(self, upload: Upload) -> None:
        self._db.execute(
            "INSERT INTO uploads VALUES (?, ?, ?, ?, ?)",
            (upload.upload_id, upload.bucket, upload.key, upload.created, _dump(upload.headers)),
        )

    def upload(self, upload_id: str) -> Upload | None:
        row = self._db.execute("SELECT * FROM uploads WHERE id = ?", (upload_id,)).fetchone()
        return _upload(row) if row else None

    def uploads(self, bucket: str) -> list[Upload]:
        rows = self._db.execute(
            "SELECT * FROM uploads WHERE bucket = ? ORDER BY key, id", (bucket,)
        )
        return [_upload(row) for row in rows]

    def put_part(self, upload_id: str, part: Part) -> list[str] | None:
        """Blobs of the part that it replaced; None, and nothing done, if the upload has ended."""
        with self._transaction():
            if self.upload(upload_id) is None:
                return None
            old = self._db.execute(
                "SELECT blob FROM parts WHERE upload = ? AND number = ?", (upload_id, part.number)
            ).fetchall()
            self._db.execute(
                "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?)",
                (
                    upload_id,
                    part.number,
                    part.segment.blob,
                    part.segment.size,
                    part.md5,
                    part.modified,
                ),
            )
            return [blob for (blob,) in old]

    def parts(self, upload_id: str) -> list[Part]:
        rows = self._db.execute(
            "SELECT number, blob, size, md5, modified FROM parts WHERE upload = ? ORDER BY number",
            (upload_id,),
        )
        return [Part(number, Segment(blob, size), md5, at) for number, blob, size, md5, at in rows]

    def complete(
        self, upload_id: str, bucket: str, stored: StoredObject, check: Check
    ) -> list[str] | None:
        """The upload becomes ``stored`` in one step. Returns blobs that are free now; None, and
        nothing done, if the upload or the bucket has gone. Raises what ``check`` does."""
        kept = {segment.blob for segment in stored.segments}
        with self._transaction():
            if self.upload(upload_id) is None:
                return None
            replaced = self._put(bucket, stored, check)
            if replaced is None:
                return None
            return replaced + [blob for blob in self._drop_upload(upload_id) if blob not in kept]

    def abort(self, upload_id: str) -> list[str]:
        with self._transaction():
            return self._drop_upload(upload_id)

    def blobs(self) -> set[str]:
        """Every blob that a row refers to."""
        found = {blob for (blob,) in self._db.execute("SELECT blob FROM parts")}
        for (segments,) in self._db.execute("SELECT segments FROM objects"):
            found.update(blob for blob, _ in json.loads(segments))
        return found

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _put(self, bucket: str, stored: StoredObject, check: Check) -> list[str] | None:
        if not self.has_bucket(bucket):
            return None
        old = self.get(bucket, stored.key)
        check(stored.key, old)
        self._db.execute(
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                bucket,
                stored.key,
                json.dumps([(segment.blob, segment.size) for segment in stored.segments]),
                stored.size,
                stored.etag,
                stored.modified,
                _dump(stored.headers),
            ),
        )
        return [segment.blob for segment in old.segments] if old else []

    def _drop_upload(self, upload_id: str) -> list[str]:
        rows = self._db.execute("SELECT blob FROM parts WHERE upload = ?", (upload_id,)).fetchall()
        self._db.execute("DELETE FROM parts WHERE upload = ?", (upload_id,))
        self._db.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))
        return [blob for (blob,) in rows]


def _dump(headers: dict[str, str]) -> str:
    return json.dumps(headers, separators=(",", ":"))


def _object(row: tuple[str, str, int, str, float, str]) -> StoredObject:
    key, segments, size, etag, modified, headers = row
    parsed = tuple(Segment(blob, length) for blob, length in json.loads(segments))
    return StoredObject(key, parsed, size, etag, modified, json.loads(headers))


def _upload(row: tuple[str, str, str, float, str]) -> Upload:
    upload_id, bucket, key, created, headers = row
    return Upload(upload_id, bucket, key, created, json.loads(headers))
