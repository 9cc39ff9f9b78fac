"""The body of an S3 upload: unframed, and proved to be what was signed, while it streams.

Three proofs can be asked for: the SHA-256 that the signature covers, a signature chained through
aws-chunked frames, and checksums in headers or in the trailer. All are complete only at the end, so
the caller stores nothing for good before the stream has ended without an error. The signature over
the request itself is not checked here.

Frames: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from nanio.errors import BadDigest, InvalidRequest, S3Error, SignatureDoesNotMatch

from ridgeline_service.objects.crc import Crc
from ridgeline_service.security.sigv4 import Verified, signing_key

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_MAX_LINE = 16 * 1024
_CHECKSUM_PREFIX = "x-amz-checksum-"
_SETTINGS = {"x-amz-checksum-mode", "x-amz-checksum-algorithm", "x-amz-checksum-type"}


class ContentHashMismatch(S3Error):  # type: ignore[misc]
    code = "XAmzContentSHA256Mismatch"
    message = "The provided 'x-amz-content-sha256' header does not match what was computed."
    http_status = 400


class IncompleteBody(S3Error):  # type: ignore[misc]
    code = "IncompleteBody"
    message = "You did not provide the number of bytes specified by the Content-Length HTTP header"
    http_status = 400


@dataclass(frozen=True)
class ChunkSigner:
    """What signs the frames of a STREAMING-AWS4-HMAC-SHA256-PAYLOAD body."""

    key: bytes
    seed: str
    timestamp: str
    scope: str

    @classmethod
    def of(cls, verified: Verified) -> ChunkSigner:
        """From the signature of the request, which seeds that of the first frame."""
        timestamp = f"{verified.signed_at:%Y%m%dT%H%M%SZ}"
        day, region, service = timestamp[:8], verified.region, verified.service
        key = signing_key(verified.signer.secret, day, region, service)
        scope = f"{day}/{region}/{service}/aws4_request"
        return cls(key, verified.signature, timestamp, scope)

    def chunk(self, previous: str, sha256: str) -> str:
        return self._sign("AWS4-HMAC-SHA256-PAYLOAD", previous, _EMPTY_SHA256, sha256)

    def trailer(self, previous: str, sha256: str) -> str:
        return self._sign("AWS4-HMAC-SHA256-TRAILER", previous, sha256)

    def _sign(self, kind: str, *rest: str) -> str:
        text = "\n".join((kind, self.timestamp, self.scope, *rest))
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


class _Checksum(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class Payload:
    """One request's body. Iterate it once; ``checksums`` is complete afterwards."""

    def __init__(
        self,
        body: AsyncIterator[bytes],
        headers: Mapping[str, str],
        *,
        marker: str,
        signer: ChunkSigner,
    ) -> None:
        """``headers`` by lower-case name; ``marker`` is what was signed in the body's place."""
        self._body = body
        self._headers = headers
        self._signer = signer
        self._marker = marker
        self._framed = marker.startswith("STREAMING-")
        self._trailer: dict[str, str] = {}
        self._of_body = True
        self.checksums: dict[str, str] = {}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        announced = announced_checksums(self._headers) if self._of_body else {}
        named = [item.strip().lower() for item in self._headers.get("x-amz-trailer", "").split(",")]
        running = {name: _checksum(name) for name in {*announced, *filter(None, named)}}
        sha256 = hashlib.sha256() if _is_digest(self._marker) else None
        md5 = hashlib.md5(usedforsecurity=False) if "content-md5" in self._headers else None
        size = 0
        async for chunk in self._unframed() if self._framed else self._body:
            size += len(chunk)
            for digest in (sha256, md5, *running.values()):
                if digest is not None:
                    digest.update(chunk)
            yield chunk
        if sha256 is not None and sha256.hexdigest() != self._marker:
            raise ContentHashMismatch()
        expected = self._headers.get("x-amz-decoded-content-length") if self._framed else None
        if expected is not None and expected != str(size):
            raise IncompleteBody()
        if md5 is not None and _base64(md5.digest()) != self._headers["content-md5"]:
            raise BadDigest()
        self.checksums = announced | {
            name: value
            for name, value in self._trailer.items()
            if name.startswith(_CHECKSUM_PREFIX)
        }
        _check(self.checksums, running)

    async def read(self, limit: int, *, of_body: bool = True) -> bytes:
        """All of a small body. ``of_body``: that is what checksums in the headers are about."""
        self._of_body = of_body
        data = bytearray()
        async for chunk in self:
            data += chunk
            if len(data) > limit:
                raise InvalidRequest(f"The body may have up to {limit} bytes")
        return bytes(data)

    async def _unframed(self) -> AsyncIterator[bytes]:
        lines = _Lines(self._body)
        signer = self._signer if self._marker.startswith("STREAMING-AWS4") else None
        previous = signer.seed if signer else ""
        while True:
            head, _, extension = (await lines.line()).partition(b";")
            try:
                size = int(head, 16)
            except ValueError:
                raise InvalidRequest(f"Bad aws-chunked frame: {head[:64]!r}") from None
            digest = hashlib.sha256()
            async for piece in lines.exactly(size):
                if signer:
                    digest.update(piece)
                yield piece
            if signer:
                given = extension.partition(b"chunk-signature=")[2].decode("latin-1").strip()
                previous = _compare(signer.chunk(previous, digest.hexdigest()), given)
            if size == 0:
                break
            if await lines.line():
                raise InvalidRequest("An aws-chunked frame is longer than it says")
        covered = b""
        signature = ""
        while line := await lines.line(end_ok=True):
            name, _, value = line.decode("latin-1").partition(":")
            name, value = name.strip().lower(), value.strip()
            if name == "x-amz-trailer-signature":
                signature = value
            else:
                covered += f"{name}:{value}\n".encode("latin-1")
                self._trailer[name] = value
        if signer and self._marker.endswith("-TRAILER"):
            _compare(signer.trailer(previous, hashlib.sha256(covered).hexdigest()), signature)
        async for rest in lines.rest():
            if rest.strip():
                raise InvalidRequest("Bytes follow the last aws-chunked frame")


def announced_checksums(headers: Mapping[str, str]) -> dict[str, str]:
    """By header: what the client says of the bytes."""
    return {
        name: value
        for name, value in headers.items()
        if name.startswith(_CHECKSUM_PREFIX) and name not in _SETTINGS
    }


async def verify_checksums(body: AsyncIterable[bytes], said: Mapping[str, str]) -> None:
    """Read all of ``body``. Raises BadDigest if it is not what ``said``, by header, tells of it."""
    running = {name: _checksum(name) for name in said}
    async for chunk in body:
        for checksum in running.values():
            if checksum is not None:
                checksum.update(chunk)
    _check(said, running)


def _check(said: Mapping[str, str], running: Mapping[str, _Checksum | None]) -> None:
    for name, value in said.items():
        checksum = running.get(name)
        if checksum is not None and _base64(checksum.digest()) != value:
            raise BadDigest(f"The {name} you specified did not match the calculated checksum.")


class _Lines:
    """Lines and runs of bytes out of pieces of any size."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._buffer = b""

    async def line(self, *, end_ok: bool = False) -> bytes:
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > _MAX_LINE:
                raise InvalidRequest("A line of the aws-chunked body is too long")
            piece = await anext(self._body, None)
            if piece is None:
                if end_ok and not self._buffer:
                    return b""
                raise IncompleteBody()
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    async def exactly(self, size: int) -> AsyncIterator[bytes]:
        while size > 0:
            if not self._buffer:
                piece = await anext(self._body, None)
                if piece is None:
                    raise IncompleteBody()
                self._buffer = piece
            taken, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(taken)
            if taken:
                yield taken

    async def rest(self) -> AsyncIterator[bytes]:
        yield self._buffer
        async for piece in self._body:
            yield piece


def _checksum(name: str) -> _Checksum | None:
    match name.removeprefix(_CHECKSUM_PREFIX):
        case "crc32":
            return _Crc32()
        case "crc32c":
            return Crc(4)
        case "crc64nvme":
            return Crc(8)
        case "sha1":
            return hashlib.sha1(usedforsecurity=False)
        case "sha256":
            return hashlib.sha256()
        case _:
            return None


def _is_digest(marker: str) -> bool:
    return len(marker) == 64 and all(letter in "0123456789abcdef" for letter in marker)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _compare(expected: str, given: str) -> str:
    if not hmac.compare_digest(expected, given):
        raise SignatureDoesNotMatch()
    return expected
