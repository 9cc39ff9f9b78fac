"""Weights of zoo models: prepared once, kept in the zoo's bucket, staged from there ever after.

A list of files beside the weights (``files.json``, written last) says that all of them are there;
its hashes are checked at every download. The same objects serve JumpStart's clients.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from ridgeline_service.control.staging.base import (
    Cancelled,
    Report,
    StagingCancelled,
    StagingFailed,
)
from ridgeline_service.control.staging.cache import ModelCache
from ridgeline_service.control.staging.prepare import Prepare, PreparedFile
from ridgeline_service.control.staging.s3 import (
    Counter,
    ModelBucket,
    failures_named,
)
from ridgeline_service.objects.reading import S3Object
from ridgeline_service.paths import DataDir
from ridgeline_service.placement.disk import check_room
from ridgeline_service.settings import Settings
from ridgeline_service.store.states import Reason
from ridgeline_zoo import Card


class ZooWeights:
    """``client`` is a boto3 S3 client that may write to the zoo's bucket."""

    def __init__(
        self,
        settings: Settings,
        data_dir: DataDir,
        client: Any,
        cache: ModelCache,
        prepare: Prepare,
    ) -> None:
        self._bucket = settings.zoo_bucket
        self._region = settings.region
        self._client = client
        self._cache = cache
        self._prepare = prepare
        self._prepared = data_dir.cache / "prepared"

    def stage(
        self,
        card: Card,
        report: Report,
        cancelled: Cancelled,
        cards_dirs: Sequence[Path] = (),
    ) -> Path:
        """The card's model directory on this machine. Raises StagingFailed, StagingCancelled."""
        files = self._files(card)
        if files is None:
            with self._cache.lock(f"zoo-{card.id}-{card.version}", cancelled):
                files = self._files(card)
                if files is None:
                    files = self._publish(card, report, cancelled, cards_dirs)
        listed = files
        return self._cache.get(
            _name(card, listed),
            lambda into: self._download(card, listed, into, report, cancelled),
            cancelled,
        )

    def _files(self, card: Card) -> list[PreparedFile] | None:
        """What lies in the bucket for the card; None if its weights were never uploaded."""
        key = _list_key(card)
        with failures_named(f"s3://{self._bucket}/{key}"):
            try:
                raw = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return None
                raise
        return [PreparedFile(**item) for item in json.loads(raw)["files"]]

    def _publish(
        self, card: Card, report: Report, cancelled: Cancelled, cards_dirs: Sequence[Path]
    ) -> list[PreparedFile]:
        """Prepare the weights, upload them, and keep what was prepared as the staged directory."""
        folder = self._prepared / f"{card.id}-{card.version}"
        files = self._prepare.run(card.id, folder, report, cancelled, cards_dirs)
        ensure_bucket(self._client, self._bucket, self._region)
        counter = Counter(report, sum(file.size for file in files), stage="upload")
        for file in files:
            if cancelled():
                raise StagingCancelled
            key = card.model_prefix + file.name
            with (
                failures_named(f"s3://{self._bucket}/{key}"),
                (folder / file.name).open("rb") as body,
            ):
                self._client.upload_fileobj(body, self._bucket, key)
            counter.add(file.size)
        document = json.dumps({"files": [vars(file) for file in files]}, indent=1)
        with failures_named(f"s3://{self._bucket}/{_list_key(card)}"):
            self._client.put_object(
                Bucket=self._bucket, Key=_list_key(card), Body=document.encode()
            )
        self._cache.get(_name(card, files), lambda into: _move(folder, files, into), cancelled)
        shutil.rmtree(folder, ignore_errors=True)
        return files

    def _download(
        self,
        card: Card,
        files: Sequence[PreparedFile],
        into: Path,
        report: Report,
        cancelled: Cancelled,
    ) -> None:
        bucket = ModelBucket(self._client)
        total = sum(file.size for file in files)
        check_room(into, total, f"The model {card.id}")
        counter = Counter(report, total)
        for file in files:
            item = S3Object(card.model_prefix + file.name, file.size, "")
            actual = bucket.download(self._bucket, item, into / file.name, counter, cancelled)
            if actual != file.sha256:
                raise StagingFailed(
                    Reason.MODEL_DATA_INVALID,
                    f"s3://{self._bucket}/{item.key} has sha256 {actual}, but {file.sha256} was "
                    "uploaded. Delete the objects below that prefix to have them made again.",
                )


def ensure_bucket(client: Any, bucket: str, region: str) -> None:
    """Make the bucket if it is not there. Raises StagingFailed."""
    with failures_named(f"s3://{bucket}"):
        try:
            client.head_bucket(Bucket=bucket)
            return
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
        request: dict[str, Any] = {"Bucket": bucket}
        if region != "us-east-1":
            request["CreateBucketConfiguration"] = {"LocationConstraint": region}
        try:
            client.create_bucket(**request)
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise


def _move(folder: Path, files: Sequence[PreparedFile], into: Path) -> None:
    for file in files:
        target = into / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / file.name, target)


def _list_key(card: Card) -> str:
    return f"{card.model_prefix.removesuffix('model/')}files.json"


def _name(card: Card, files: Sequence[PreparedFile]) -> str:
    digest = hashlib.sha256("".join(f"{f.name}\n{f.sha256}\n" for f in files).encode())
    return f"zoo-{card.id}-{digest.hexdigest()[:32]}"
