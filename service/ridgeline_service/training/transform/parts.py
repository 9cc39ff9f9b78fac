"""The journal of one input: what the model answered, batch by batch, as it came.

Appended to while the job runs and read again by the attempt that goes on. A frame that a kill tore
is cut off, so that its batch is asked for once more; a whole one is never asked for again.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

_FRAME = struct.Struct(">QII")  # the batch's index, the length and the checksum of its answer


class Parts:
    """One thread at a time. ``identity`` says of which input and settings the answers are: a
    journal of others is begun anew."""

    def __init__(self, path: Path, identity: Mapping[str, object]) -> None:
        self._places: dict[int, tuple[int, int]] = {}
        head = (json.dumps(identity, sort_keys=True) + "\n").encode()
        self._file: BinaryIO = open(  # noqa: SIM115 (closed by ``close``)
            os.open(path, os.O_CREAT | os.O_RDWR, 0o600), "r+b"
        )
        if self._file.readline() == head:
            self._recover()
        else:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(head)
            self._file.flush()

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, index: int, answer: bytes) -> None:
        """Keep an answer. What has returned survives the death of this process."""
        if index in self._places:
            raise ValueError(f"batch {index} was answered before")
        begin = self._file.seek(0, os.SEEK_END)
        self._file.write(_FRAME.pack(index, len(answer), zlib.crc32(answer)) + answer)
        self._file.flush()
        self._places[index] = (begin + _FRAME.size, len(answer))

    def assemble(self, into: BinaryIO, *, lines: bool) -> None:
        """All answers in the order of their batches; with ``lines`` each ends a line."""
        for index in sorted(self._places):
            begin, size = self._places[index]
            self._file.seek(begin)
            answer = self._file.read(size)
            into.write(answer)
            if lines and not answer.endswith(b"\n"):
                into.write(b"\n")

    def close(self) -> None:
        self._file.close()

    def _recover(self) -> None:
        whole = self._file.tell()
        while len(head := self._file.read(_FRAME.size)) == _FRAME.size:
            index, size, checksum = _FRAME.unpack(head)
            answer = self._file.read(size)
            if len(answer) != size or zlib.crc32(answer) != checksum:
                break
            self._places[index] = (whole + _FRAME.size, size)
            whole = self._file.tell()
        self._file.truncate(whole)
