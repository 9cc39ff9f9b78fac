"""Puts into the zoo's bucket what a job takes from there and nobody has put there yet: the weights
of a base model, and the scripts of recipes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from ridgeline_service.control.endpoints.planning import zoo_id_in
from ridgeline_service.control.staging import StagingFailed
from ridgeline_service.control.staging.base import Cancelled
from ridgeline_service.control.staging.s3 import failures_named
from ridgeline_service.control.staging.weights import ZooWeights, ensure_bucket
from ridgeline_service.settings import Settings
from ridgeline_service.store.states import Reason
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_zoo import Catalog, tuning

_SUBMITTED = ("sagemaker_submit_directory", "SAGEMAKER_SUBMIT_DIRECTORY")


class JobInputs(Protocol):
    """The seam for tests."""

    def provide(self, request: Mapping[str, Any], cancelled: Cancelled) -> None:
        """Blocks until all is there. Raises JobFailed or StagingCancelled."""
        ...


class ZooInputs:
    """``client`` is a boto3 S3 client that may write to the zoo's bucket."""

    def __init__(
        self, settings: Settings, client: Any, cards: Callable[[], Catalog], weights: ZooWeights
    ) -> None:
        self._bucket = settings.zoo_bucket
        self._region = settings.region
        self._client = client
        self._cards = cards
        self._weights = weights

    def provide(self, request: Mapping[str, Any], cancelled: Cancelled) -> None:
        """Nothing is asked of the store for a job that takes nothing of the zoo's."""
        wanted = {zoo_id_in(uri, self._bucket) for uri in _channels(request)} - {None}
        try:
            for card in self._cards():
                if card.id in wanted:
                    self._weights.stage(card, no_report, cancelled)
            if f"s3://{self._bucket}/{tuning.archive_key()}" in _code(request):
                self._provide_recipes()
        except StagingFailed as error:
            message = f"The base model could not be made ready. {error.message}"
            raise JobFailed(cause_of(error.reason), message, error.log) from error

    def _provide_recipes(self) -> None:
        key = tuning.archive_key()
        ensure_bucket(self._client, self._bucket, self._region)
        with failures_named(f"s3://{self._bucket}/{key}"):
            # The key names the content: writing it again changes nothing.
            self._client.put_object(Bucket=self._bucket, Key=key, Body=tuning.archive())


def _channels(request: Mapping[str, Any]) -> Iterator[str]:
    for channel in request.get("InputDataConfig") or ():
        yield channel["DataSource"].get("S3DataSource", {}).get("S3Uri", "")


def _code(request: Mapping[str, Any]) -> set[str]:
    """Where the job's code lies; clients write hyperparameters as JSON, so with quotes."""
    values = {**(request.get("HyperParameters") or {}), **(request.get("Environment") or {})}
    return {re.sub(r'^"(.*)"$', r"\1", values[name]) for name in _SUBMITTED if name in values}


def cause_of(reason: Reason) -> Cause:
    """What a job ends with whose model could not be staged."""
    if reason is Reason.DISK_FULL:
        return Cause.DISK_FULL
    return Cause.DATA_UNREACHABLE if reason.retried else Cause.DATA_INVALID


def no_report(stage: str, done: int, total: int) -> None:
    """A job shows no stages of its inputs."""
