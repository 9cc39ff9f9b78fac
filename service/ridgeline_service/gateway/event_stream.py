"""AWS's event-stream framing, as InvokeEndpointWithResponseStream sends it.

A message is: total length, length of the headers, CRC-32 of those eight bytes, headers, payload,
CRC-32 of all before. Lengths and checksums are 32-bit big-endian; a header is a length-prefixed
name, the type byte 7 (string), and a value with a 16-bit length.
Specification: https://smithy.io/2.0/aws/amazon-eventstream.html
"""

from __future__ import annotations

import json
import re
import struct
import zlib

CONTENT_TYPE = "application/vnd.amazon.eventstream"

# botocore's reader refuses a payload of 16 MiB and more; AWS sends far smaller ones.
MAX_PAYLOAD = 1024 * 1024


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One framed message. Names have up to 255 bytes, values up to 65,535."""
    encoded = b"".join(_header(name, value) for name, value in headers.items())
    total = 12 + len(encoded) + len(payload) + 4
    prelude = struct.pack("!II", total, len(encoded))
    framed = prelude + struct.pack("!I", zlib.crc32(prelude)) + encoded + payload
    return framed + struct.pack("!I", zlib.crc32(framed))


class PayloadParts:
    """What a model streams, as PayloadPart events. Lines of JSON and server-sent events come one a
    part, however they were cut on their way here: clients parse each part by itself. Anything else
    goes on as it comes, and so does a line or event that is larger than a part."""

    def __init__(self, content_type: str) -> None:
        kind = content_type.partition(";")[0].strip().lower()
        self._end = _ENDS.get(kind)
        self._held = bytearray()

    def take(self, chunk: bytes) -> bytes:
        """The parts that are whole with this piece: none, one or several."""
        if self._end is None:
            return _parts(chunk)
        # What is held has no end in it, but may have the beginning of one.
        searched = max(0, len(self._held) - _LONGEST_END + 1)
        self._held += chunk
        framed = []
        begun = 0
        for end in self._end.finditer(self._held, searched):
            framed.append(_parts(bytes(self._held[begun : end.end()])))
            begun = end.end()
        rest = len(self._held) - begun
        whole = begun + rest - rest % MAX_PAYLOAD
        framed.append(_parts(bytes(self._held[begun:whole])))
        del self._held[:whole]
        return b"".join(framed)

    def rest(self) -> bytes:
        """What came after the last end."""
        held = bytes(self._held)
        self._held.clear()
        return _parts(held)


def exception(kind: str, **fields: str) -> bytes:
    """An error in mid-stream: ``ModelStreamError`` or ``InternalStreamFailure``."""
    headers = {
        ":exception-type": kind,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return message(headers, json.dumps(fields).encode())


_LINE = re.compile(rb"\n")
# https://html.spec.whatwg.org/multipage/server-sent-events.html: a blank line ends an event.
_ENDS = {
    "text/event-stream": re.compile(rb"\n\r?\n"),
    "application/jsonlines": _LINE,
    "application/x-jsonlines": _LINE,
    "application/x-ndjson": _LINE,
}
_LONGEST_END = 3
_PART_HEADERS = {
    ":event-type": "PayloadPart",
    ":content-type": "application/octet-stream",
    ":message-type": "event",
}


def _header(name: str, value: str) -> bytes:
    raw_name, raw_value = name.encode(), value.encode()
    return (
        struct.pack("!B", len(raw_name))
        + raw_name
        + b"\x07"
        + struct.pack("!H", len(raw_value))
        + raw_value
    )


def _parts(data: bytes) -> bytes:
    """One event, several if ``data`` is very large, none if there is none."""
    return b"".join(
        message(_PART_HEADERS, data[start : start + MAX_PAYLOAD])
        for start in range(0, len(data), MAX_PAYLOAD)
    )
