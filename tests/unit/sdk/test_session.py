"""Buckets, uploads, roles and whose side a session is on."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import boto3
import pytest

from ridgeline.errors import InvalidInput, NotFound, Unavailable
from ridgeline.session import Session


@pytest.fixture
def fresh(fake: Any, tmp_path: Path, sdk_tools: Any) -> Session:
    """A session that remembers nothing of earlier tests."""
    return Session(data_dir=sdk_tools.write_data_dir(tmp_path / "d", fake.url), environ={})


def test_the_default_bucket_is_the_service_s_and_is_made(
    fake: Any, fresh: Session, sdk_tools: Any
) -> None:
    fake.buckets.clear()
    assert fresh.default_bucket() == sdk_tools.bucket
    assert fake.buckets == {sdk_tools.bucket}


def test_the_role_of_the_environment_comes_first(fake: Any, tmp_path: Path, sdk_tools: Any) -> None:
    data_dir = sdk_tools.write_data_dir(tmp_path / "d", fake.url)
    mine = "arn:aws:iam::1:role/mine"
    assert Session(data_dir=data_dir, environ={"RIDGELINE_ROLE_ARN": mine}).role == mine
    assert Session(data_dir=data_dir, environ={}).role == sdk_tools.role


def test_uploading_a_file_and_a_folder(
    fake: Any, fresh: Session, tmp_path: Path, sdk_tools: Any
) -> None:
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.csv").write_text("1")
    (folder / "deep" / "b.csv").write_text("2")
    bucket = sdk_tools.bucket
    assert fresh.upload_data(folder / "a.csv", key_prefix="one") == f"s3://{bucket}/one/a.csv"
    assert fresh.upload_data(folder, key_prefix="all") == f"s3://{bucket}/all"
    assert set(fake.objects) == {
        f"{bucket}/one/a.csv",
        f"{bucket}/all/a.csv",
        f"{bucket}/all/deep/b.csv",
    }
    with pytest.raises(NotFound, match="absent"):
        fresh.upload_data(tmp_path / "absent")


def test_a_boto_session_brings_its_own_keys(fake: Any, sdk_tools: Any) -> None:
    boto_session = boto3.Session(
        aws_access_key_id="MINE", aws_secret_access_key="x", region_name="eu-west-1"
    )
    session = Session(boto_session, endpoint_url=fake.url)
    assert session.info["role_arn"] == sdk_tools.role
    assert "Credential=MINE/" in fake.calls[-1].headers["authorization"]
    assert session.region == session.boto_region_name == "eu-west-1"
    assert not session.is_aws


def test_aws_needs_a_role_to_be_named() -> None:
    with pytest.raises(InvalidInput, match="role"):
        _ = Session(aws=True, region="us-east-1", environ={}).role


def test_a_service_that_takes_calls_and_does_not_answer_is_told_within_the_bound(
    tmp_path: Path, sdk_tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.session._CONTROL_S", 0.2)
    monkeypatch.setattr("ridgeline._api._TIMEOUT_S", (0.2, 0.2))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        data_dir = sdk_tools.write_data_dir(tmp_path / "d", url)
        session = Session(data_dir=data_dir, environ={})
        for ask in (
            session.sagemaker_client.list_endpoints,
            session.logs_client.describe_log_groups,
            lambda: session.api.get("zoo"),
        ):
            with pytest.raises(Unavailable, match="not answer in time") as caught, session.call():
                ask()
            assert str(data_dir / "logs" / "control.log") in caught.value.hint
        silent.setblocking(False)
        # One attempt each: a call that took the whole bound is not made again.
        for _ in range(3):
            silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
