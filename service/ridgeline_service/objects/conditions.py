"""If-Match and its siblings: what must hold of an object for it to be read, replaced or deleted.

A condition on a read is checked against the object that is answered. One on a write is checked by
the index in the transaction that writes, so that of two writers with one condition only one wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from nanio.errors import NoSuchKey, NotImplemented_, PreconditionFailed, S3Error

from ridgeline_service.objects.index import StoredObject


class NotModified(S3Error):  # type: ignore[misc]
    code = "NotModified"
    message = "Not Modified"
    http_status = 304


@dataclass(frozen=True)
class WriteCondition:
    """What must be at a key before it is written: nothing (``absent``), or an object with this
    ETag (``etag``, of which ``*`` is any and an empty one asks for nothing)."""

    absent: bool = False
    etag: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> WriteCondition:
        """Raises NotImplemented_ for If-None-Match with an ETag, as S3 does."""
        none_match = headers.get("if-none-match", "").strip()
        if none_match not in ("", "*"):
            raise NotImplemented_("A write takes no If-None-Match but '*'; If-Match takes an ETag.")
        return cls(absent=none_match == "*", etag=headers.get("if-match", ""))

    def check(self, key: str, current: StoredObject | None) -> None:
        """Raises PreconditionFailed, or NoSuchKey where there is nothing to match."""
        if self.absent and current is not None:
            raise PreconditionFailed(resource=key)
        if not self.etag:
            return
        if current is None:
            raise NoSuchKey(resource=key)
        if not _matches(self.etag, current):
            raise PreconditionFailed(resource=key)


ALWAYS = WriteCondition()


def check_read(
    headers: Mapping[str, str], stored: StoredObject, *, prefix: str = "", reading: bool = True
) -> None:
    """Raises PreconditionFailed or NotModified. ``prefix`` is ``x-amz-copy-source-`` for the source
    of a copy, where nothing is ``reading`` that could keep what it has."""

    def matches(name: str) -> bool | None:
        value = headers.get(prefix + name)
        return None if value is None else _matches(value, stored)

    def newer(name: str) -> bool | None:
        try:
            since = parsedate_to_datetime(headers[prefix + name])
        except (KeyError, ValueError):
            return None
        return int(stored.modified) > since.timestamp()

    match = matches("if-match")
    if match is False or (match is None and newer("if-unmodified-since")):
        raise PreconditionFailed()
    none_match = matches("if-none-match")
    if none_match or (none_match is None and newer("if-modified-since") is False):
        raise NotModified() if reading else PreconditionFailed()


def _matches(header: str, stored: StoredObject) -> bool:
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")]
    return "*" in tags or stored.etag in tags
