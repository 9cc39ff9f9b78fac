"""AWS's event-stream framing, as InvokeEndpointWithResponseStream sends it.

A message is: total length, length of the headers, CRC-32 of those eight bytes, headers, payload,
CRC-32 of all before. Lengths and checksums are 32-bit big-endian; a header is a length-prefixed
name, the type byte 7 (string), and a value with a 16-bit length.
Specification: https://smithy.io/2.0/aws/amazon-eventstream.html
"""

from __future__ import annotations

import json
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


def payload_parts(chunk: bytes) -> bytes:
    """``chunk`` as PayloadPart events: one, or several if it is very large."""
    return b"".join(
        message(_PART_HEADERS, chunk[start : start + MAX_PAYLOAD])
        for start in range(0, len(chunk), MAX_PAYLOAD)
    )


def exception(kind: str, **fields: str) -> bytes:
    """An error in mid-stream: ``ModelStreamError`` or ``InternalStreamFailure``."""
    headers = {
        ":exception-type": kind,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return message(headers, json.dumps(fields).encode())


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
