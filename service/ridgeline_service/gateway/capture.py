"""Data capture: what an endpoint was asked and what it answered, kept in S3 in SageMaker's format.

A record is a line of JSON; lines are gathered in memory and written as objects under
``DestinationS3Uri/ENDPOINT/VARIANT/yyyy/mm/dd/hh/``, after ``FLUSH_S`` or when they are many. A
request never waits for that. What a killed gateway had not written is lost; what the store does
not take is kept and tried again, up to ``_MOST_BYTES``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ridgeline.errors import RidgelineError
from ridgeline_service.gateway.routing import Lease
from ridgeline_service.objects.client import AsyncObjectClient
from ridgeline_service.snapshot import CaptureRoute

FLUSH_S = 10.0
_OBJECT_BYTES = 8 * 2**20
_MOST_BYTES = 128 * 2**20
_PREFIX = "x-amzn-sagemaker-"

_log = logging.getLogger(__name__)


@dataclass
class _Lines:
    """Of one variant and hour, on their way to one folder."""

    lines: list[bytes] = field(default_factory=list)
    size: int = 0


class Captures:
    """Of one gateway. ``clock`` gives the time in UTC, ``chance`` a number from 0 to 1."""

    def __init__(
        self,
        objects: AsyncObjectClient,
        *,
        new_id: Callable[[], str],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._objects = objects
        self._new_id = new_id
        self._clock = clock
        self._chance = chance
        self._folders: dict[str, _Lines] = {}
        self._full = asyncio.Event()
        self._lost = 0

    def wanted(self, route: CaptureRoute) -> bool:
        """Whether a request is one of the sample."""
        return 100 * self._chance() < route.percent

    def record(
        self,
        route: CaptureRoute,
        lease: Lease,
        asked: Mapping[str, str],
        body: bytes,
        answered: Mapping[str, str],
        answer: bytes,
    ) -> None:
        """Keep a request and its answer: headers, and bodies."""
        now = self._clock()
        data = {}
        if route.input:
            kind = asked.get("content-type", "application/octet-stream")
            data["endpointInput"] = _side("INPUT", kind, body, route)
        if route.output:
            kind = answered.get("Content-Type", "application/octet-stream")
            data["endpointOutput"] = _side("OUTPUT", kind, answer, route)
        event: dict[str, object] = {
            "eventId": self._new_id(),
            "inferenceTime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        }
        if attributes := asked.get(_PREFIX + "custom-attributes"):
            event["customAttributes"] = [attributes]
        if inference := asked.get(_PREFIX + "inference-id"):
            event["inferenceId"] = inference
        line = json.dumps({"captureData": data, "eventMetadata": event, "eventVersion": "0"})
        folder = f"{route.destination}/{lease.endpoint.name}/{lease.variant.name}/{now:%Y/%m/%d/%H}"
        self._keep(folder, line.encode() + b"\n")

    def _keep(self, folder: str, line: bytes) -> None:
        if sum(lines.size for lines in self._folders.values()) + len(line) > _MOST_BYTES:
            self._lost += 1
            return
        lines = self._folders.setdefault(folder, _Lines())
        lines.lines.append(line)
        lines.size += len(line)
        if lines.size >= _OBJECT_BYTES:
            self._full.set()

    async def run(self) -> None:
        """Write what is gathered, again and again, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._full.wait()
            except TimeoutError:
                pass
            self._full.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write all that is gathered, an object for each folder."""
        if self._lost:
            _log.warning("%d captured requests are lost: too many waited for S3", self._lost)
            self._lost = 0
        for folder in list(self._folders):
            lines = self._folders.pop(folder).lines
            now = self._clock()
            uri = f"{folder}/{now:%M-%S}-{now.microsecond // 1000:03}-{self._new_id()}.jsonl"
            try:
                await self._objects.put(
                    uri, b"".join(lines), {"Content-Type": "application/jsonlines"}
                )
            except BaseException as error:
                for line in lines:
                    self._keep(folder, line)
                if not isinstance(error, RidgelineError):
                    raise
                _log.warning("captured requests cannot be written yet: %s", error.message)


def _side(mode: str, content_type: str, body: bytes, route: CaptureRoute) -> dict[str, str]:
    """One of both, as text where its content type says that it is."""
    kind = content_type.partition(";")[0].strip().lower()
    encoding = "CSV" if kind in route.csv_types else "JSON" if kind in route.json_types else ""
    try:
        data = body.decode() if encoding else ""
    except UnicodeDecodeError:
        encoding = ""
    return {
        "observedContentType": content_type,
        "mode": mode,
        "data": data if encoding else base64.b64encode(body).decode(),
        "encoding": encoding or "BASE64",
    }
