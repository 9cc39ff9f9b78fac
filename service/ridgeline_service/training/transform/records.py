"""Records of an input and batches of records: SplitType, BatchStrategy and MaxPayloadInMB.

Pure functions over binary files. The batches of an input depend on nothing but its bytes and the
settings, so that an attempt that goes on finds the same ones.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal

SplitType = Literal["None", "Line", "RecordIO", "TFRecord"]

_RECORDIO_MAGIC = 0xCED7230A
_RECORDIO_LENGTH = (1 << 29) - 1
_LINE_LIMIT = 100 << 20


class BadInput(Exception):
    """The input cannot be split, or a record is longer than a request may be."""


@dataclass(frozen=True)
class Record:
    """``framed`` is the record as it stands in its file, ``payload`` without what the format puts
    around it."""

    framed: bytes
    payload: bytes


@dataclass(frozen=True)
class Batch:
    """The body of one request: ``count`` records from the one numbered ``first``, from 0."""

    index: int
    first: int
    count: int
    body: bytes


def batches(
    file: BinaryIO, split: SplitType, *, single: bool, max_bytes: int | None
) -> Iterator[Batch]:
    """The requests of one input, in order; ``max_bytes`` None is no limit. With ``single`` each
    record is a request, else as many as fit. Raises BadInput."""
    body, first, count, index = bytearray(), 0, 0, 0
    for number, record in enumerate(_SPLITTERS[split](file)):
        alone = single or split == "None"
        data = record.payload if alone else record.framed
        if max_bytes is not None and len(data) > max_bytes:
            raise BadInput(
                f"record {number + 1} has {len(data)} bytes, and MaxPayloadInMB allows "
                f"{max_bytes}; raise it, or make records smaller"
            )
        full = max_bytes is not None and len(body) + len(data) > max_bytes
        if count and (alone or full):
            yield Batch(index, first, count, bytes(body))
            body, first, count, index = bytearray(), number, 0, index + 1
        body += data
        count += 1
    if count:
        yield Batch(index, first, count, bytes(body))


def _whole(file: BinaryIO) -> Iterator[Record]:
    data = file.read()
    if data:
        yield Record(data, data)


def _lines(file: BinaryIO) -> Iterator[Record]:
    """Empty lines are no records."""
    while line := file.readline(_LINE_LIMIT):
        payload = line.rstrip(b"\r\n")
        if payload.strip():
            yield Record(payload + b"\n", payload)


def _recordio(file: BinaryIO) -> Iterator[Record]:
    """MXNet's format: magic number, length, data, padding to four bytes."""
    while head := file.read(8):
        magic, length = struct.unpack("<II", _exactly(head, 8))
        if magic != _RECORDIO_MAGIC:
            raise BadInput("it is no RecordIO file: a record does not begin with its magic number")
        size = length & _RECORDIO_LENGTH
        padded = size + -size % 4
        data = _exactly(file.read(padded), padded)
        yield Record(head + data, data[:size])


def _tfrecord(file: BinaryIO) -> Iterator[Record]:
    """TensorFlow's format: length, its checksum, data, its checksum."""
    while head := file.read(12):
        (size,) = struct.unpack("<Q", _exactly(head, 12)[:8])
        data = file.read(size)
        checksum = file.read(4)
        _exactly(data + checksum, size + 4)
        yield Record(head + data + checksum, data)


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise BadInput("it ends in the middle of a record")
    return data


_SPLITTERS: Mapping[SplitType, Callable[[BinaryIO], Iterator[Record]]] = {
    "None": _whole,
    "Line": _lines,
    "RecordIO": _recordio,
    "TFRecord": _tfrecord,
}
