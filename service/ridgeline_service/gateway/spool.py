"""Asynchronous requests that were accepted and not delivered yet: one file each, on disk.

A request is accepted when its file is there for good; it ends when the file is removed. So what
was accepted is delivered at least once, whatever is killed in between.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass
from pathlib import Path

from ridgeline_service.files import write_atomic


@dataclass(frozen=True)
class SpooledRequest:
    """Times in seconds; ``received_at`` since the epoch. ``attempts`` counts replicas it broke.

    The input is the object at ``input_location``, or ``body`` itself (base64) when that is empty.
    """

    request_id: str
    endpoint: str
    inference_id: str
    input_location: str
    body_base64: str
    output_location: str
    failure_location: str
    content_type: str
    headers: dict[str, str]
    target: str
    received_at: float
    ttl_s: float
    timeout_s: float
    attempts: int = 0

    @property
    def body(self) -> bytes:
        return b64decode(self.body_base64)


def encode_body(body: bytes) -> str:
    return b64encode(body).decode()


class Spool:
    """The folder. Names sort by time of acceptance, so that older requests go first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def keep(self, request: SpooledRequest) -> None:
        """Returns when the request would survive a power cut."""
        await asyncio.to_thread(
            write_atomic,
            self._path(request),
            json.dumps(asdict(request)),
            mode=0o600,
            durable=True,
        )

    async def remove(self, request: SpooledRequest) -> None:
        await asyncio.to_thread(self._path(request).unlink, missing_ok=True)

    def load(self) -> list[SpooledRequest]:
        """All that is not delivered, oldest first."""
        if not self._folder.is_dir():
            return []
        files = sorted(self._folder.glob("[!.]*.json"))
        return [SpooledRequest(**json.loads(file.read_text())) for file in files]

    def _path(self, request: SpooledRequest) -> Path:
        return self._folder / f"{int(request.received_at * 1e6):020d}-{request.request_id}.json"
