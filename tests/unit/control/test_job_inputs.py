"""What jobs take from the zoo's bucket is put there first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from ridgeline_service.control.jobs.inputs import ZooInputs
from ridgeline_service.control.staging import StagingFailed
from ridgeline_service.settings import Settings
from ridgeline_service.store.states import Reason
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_zoo import Card, load_cards, tuning

BUCKET = "jumpstart-cache-prod-us-east-1"
SOURCE = f"s3://{BUCKET}/{tuning.archive_key()}"


class Weights:
    def __init__(self, error: StagingFailed | None = None) -> None:
        self.staged: list[str] = []
        self._error = error

    def stage(self, card: Card, report: Any, cancelled: Any) -> Path:
        report("download", 0, 0)
        self.staged.append(card.id)
        if self._error is not None:
            raise self._error
        return Path("/nowhere")


def request(*uris: str, **hyperparameters: str) -> dict[str, Any]:
    return {
        "InputDataConfig": [
            {"ChannelName": f"c{number}", "DataSource": {"S3DataSource": {"S3Uri": uri}}}
            for number, uri in enumerate(uris)
        ],
        "HyperParameters": hyperparameters,
    }


def provide(weights: Weights, wanted: dict[str, Any], client: Any = None) -> None:
    inputs = ZooInputs(Settings(), client, load_cards, weights)  # type: ignore[arg-type]
    inputs.provide(wanted, lambda: False)


def test_a_job_of_the_zoo_gets_its_base() -> None:
    card = load_cards().get("smollm2-135m-instruct")
    weights = Weights()
    provide(weights, request("s3://mine/data", f"s3://{BUCKET}/{card.model_prefix}"))
    assert weights.staged == [card.id]


def test_other_jobs_ask_nothing_of_the_store() -> None:
    weights = Weights()
    provide(weights, request("s3://mine/data", sagemaker_submit_directory='"s3://mine/code"'))
    provide(weights, {})
    assert weights.staged == []


@pytest.mark.parametrize("written", [SOURCE, f'"{SOURCE}"'])
def test_the_recipes_are_there_when_a_job_wants_them(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        wanted = request(sagemaker_submit_directory=written)
        provide(Weights(), wanted, client)
        provide(Weights(), wanted, client)
        found = client.get_object(Bucket=BUCKET, Key=tuning.archive_key())
        assert found["Body"].read() == tuning.archive()


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (Reason.DOWNLOAD_FAILED, Cause.DATA_UNREACHABLE),
        (Reason.MODEL_DATA_INVALID, Cause.DATA_INVALID),
        (Reason.DISK_FULL, Cause.DISK_FULL),
    ],
)
def test_weights_that_cannot_be_had_fail_the_job_with_their_reason(
    reason: Reason, cause: Cause
) -> None:
    card = load_cards().get("smollm2-135m-instruct")
    weights = Weights(StagingFailed(reason, "The hub is away."))
    with pytest.raises(JobFailed, match="The hub is away") as caught:
        provide(weights, request(f"s3://{BUCKET}/{card.model_prefix}"))
    assert caught.value.cause is cause
