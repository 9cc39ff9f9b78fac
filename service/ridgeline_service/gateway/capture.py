"""Data capture: what an endpoint was asked and what it answered, kept in S3 in SageMaker's format.

Requests are gathered in memory, and written as lines of JSON into an object for each folder
``DestinationS3Uri/ENDPOINT/VARIANT/yyyy/mm/dd/hh``: after ``FLUSH_S``, or when they are many. No
request waits for that. What a killed gateway had not written is lost. While the store is away all
is kept and tried again, up to ``_MOST_BYTES``; what it refuses is dropped and said in the log.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ridgeline.errors import RidgelineError, Unavailable
from ridgeline_service.gateway.routing import Lease
from ridgeline_service.objects.client import AsyncObjectClient
from ridgeline_service.snapshot import CaptureRoute

FLUSH_S = 10.0
_OBJECT_BYTES = 8 * 2**20
_MOST_BYTES = 128 * 2**20
_PREFIX = "x-amzn-sagemaker-"
_BINARY = "application/octet-stream"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Record:
    """A request and its answer, for ``folder``."""

    folder: str
    route: CaptureRoute
    event: Mapping[str, object]
    asked_type: str
    asked: bytes
    answered_type: str
    answered: bytes

    @property
    def size(self) -> int:
        return len(self.asked) + len(self.answered)

    def line(self) -> bytes:
        data = {}
        if self.route.input:
            data["endpointInput"] = _side("INPUT", self.asked_type, self.asked, self.route)
        if self.route.output:
            data["endpointOutput"] = _side("OUTPUT", self.answered_type, self.answered, self.route)
        whole = {"captureData": data, "eventMetadata": self.event, "eventVersion": "0"}
        return json.dumps(whole).encode() + b"\n"


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
        self._kept: list[_Record] = []
        self._size = 0
        self._many = asyncio.Event()

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
        event: dict[str, object] = {
            "eventId": self._new_id(),
            "inferenceTime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        }
        if attributes := asked.get(_PREFIX + "custom-attributes"):
            event["customAttributes"] = [attributes]
        if inference := asked.get(_PREFIX + "inference-id"):
            event["inferenceId"] = inference
        place = f"{lease.endpoint.name}/{lease.variant.name}/{now:%Y/%m/%d/%H}"
        kept = _Record(
            folder=f"{route.destination}/{place}",
            route=route,
            event=event,
            asked_type=asked.get("content-type", _BINARY),
            asked=body,
            answered_type=answered.get("Content-Type", _BINARY),
            answered=answer,
        )
        if self._size + kept.size > _MOST_BYTES:
            _log.warning("a captured request of %s is lost: too many wait for S3", place)
            return
        self._kept.append(kept)
        self._size += kept.size
        if self._size >= _OBJECT_BYTES:
            self._many.set()

    async def run(self) -> None:
        """Write what is gathered, again and again, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._many.wait()
            except TimeoutError:
                pass
            if not await self.flush():
                await asyncio.sleep(FLUSH_S)

    async def flush(self) -> bool:
        """Write all that is gathered. Returns whether nothing waits for a store that is away."""
        self._many.clear()
        waiting: dict[str, list[_Record]] = {}
        for record in self._kept:
            waiting.setdefault(record.folder, []).append(record)
        for folder, records in waiting.items():
            if not await self._written(folder, records):
                return False
            # What came meanwhile is of the next turn.
            done = set(map(id, records))
            self._kept = [record for record in self._kept if id(record) not in done]
            self._size -= sum(record.size for record in records)
        return True

    async def _written(self, folder: str, records: Sequence[_Record]) -> bool:
        now = self._clock()
        uri = f"{folder}/{now:%M-%S}-{now.microsecond // 1000:03}-{self._new_id()}.jsonl"
        body = await asyncio.to_thread(lambda: b"".join([record.line() for record in records]))
        try:
            await self._objects.put(uri, body, {"Content-Type": "application/jsonlines"})
        except Unavailable as error:
            _log.warning("captured requests cannot be written yet: %s", error.message)
            return False
        except RidgelineError as error:
            _log.warning("%d captured requests are lost: %s", len(records), error.message)
        return True


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
