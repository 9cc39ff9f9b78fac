"""Puts the catalogue where AWS's JumpStart clients look for theirs. Weights follow when a model is
first deployed; these are only the lists and the specs."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ridgeline_service.control.staging import StagingFailed
from ridgeline_service.control.staging.weights import ensure_bucket
from ridgeline_service.settings import Settings
from ridgeline_zoo import Catalog, jumpstart

FIRST_RETRY_S = 0.5
LAST_RETRY_S = 30.0

log = logging.getLogger(__name__)


class JumpStartCatalogue:
    """``publish`` writes what differs; ``run`` repeats it until the store has taken it."""

    def __init__(self, settings: Settings, client: Any, cards: Callable[[], Catalog]) -> None:
        self._settings = settings
        self._client = client
        self._cards = cards

    def run(self, stopping: threading.Event) -> None:
        pause = FIRST_RETRY_S
        while not stopping.is_set():
            try:
                self.publish()
                return
            except (StagingFailed, BotoCoreError, ClientError) as error:
                log.info("the JumpStart catalogue waits for the object store: %s", error)
                stopping.wait(pause)
                pause = min(2 * pause, LAST_RETRY_S)

    def publish(self) -> int:
        """Returns how many objects were written: none if all are as they should be."""
        bucket = self._settings.zoo_bucket
        ensure_bucket(self._client, bucket, self._settings.region)
        written = 0
        for key, body in self._objects().items():
            if self._etag(bucket, key) != hashlib.md5(body, usedforsecurity=False).hexdigest():
                self._client.put_object(
                    Bucket=bucket, Key=key, Body=body, ContentType="application/json"
                )
                written += 1
        return written

    def _objects(self) -> dict[str, bytes]:
        """Specs first: no list may name one that is not there."""
        cards = jumpstart.published(self._cards())
        region = self._settings.region
        objects = {
            jumpstart.spec_key(card): jumpstart.render(jumpstart.spec(card, region))
            for card in cards
        }
        objects[jumpstart.PROPRIETARY_MANIFEST_KEY] = jumpstart.render(
            jumpstart.proprietary_manifest()
        )
        objects[jumpstart.MANIFEST_KEY] = jumpstart.render(jumpstart.manifest(cards))
        return objects

    def _etag(self, bucket: str, key: str) -> str:
        try:
            found = self._client.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return ""
            raise
        return str(found["ETag"]).strip('"')
