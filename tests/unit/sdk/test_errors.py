"""Codes of the service and of AWS become the classes of ``ridgeline.errors``."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline import errors
from ridgeline._translate import error_from
from ridgeline.errors import RidgelineError
from ridgeline.session import Session


@pytest.mark.parametrize(
    ("code", "status", "message", "wanted"),
    [
        ("ValidationException", 400, "1 validation error detected", errors.InvalidInput),
        ("ValidationException", 400, 'Could not find endpoint "arn".', errors.NotFound),
        ("ValidationError", 400, "Endpoint e of account 1 not found.", errors.NotFound),
        ("ValidationException", 400, "Cannot create already existing model", errors.AlreadyExists),
        ("ValidationException", 400, "Cannot update in-progress endpoint", errors.NotReady),
        ("ResourceNotFoundException", 400, "no group", errors.NotFound),
        ("ResourceLimitExceeded", 400, "too many", errors.Unsupported),
        ("UnknownOperationException", 400, "CreateX", errors.Unsupported),
        ("SignatureDoesNotMatch", 403, "no", errors.AccessDenied),
        ("InvalidClientTokenId", 403, "no", errors.AccessDenied),
        ("ThrottlingException", 429, "full", errors.Overloaded),
        ("SomethingNew", 429, "full", errors.Overloaded),
        ("ModelError", 424, "boom", errors.InvocationFailed),
        ("ServiceUnavailable", 503, "away", errors.Unavailable),
        ("SomethingNew", 503, "away", errors.Unavailable),
        ("SomethingNew", 404, "gone", errors.NotFound),
        ("SomethingNew", 500, "bug", errors.InternalError),
        ("", 0, "?", errors.InternalError),
        ("NotFound", 404, "no", errors.NotFound),
        ("NotReady", 409, "no", errors.NotReady),
    ],
)
def test_a_code_becomes_its_class(
    code: str, status: int, message: str, wanted: type[RidgelineError]
) -> None:
    assert type(error_from(code, message, status)) is wanted


def test_every_class_of_the_tree_is_rebuilt_from_its_own_code() -> None:
    """What the service raises, the client raises; but for those that need a place or a log."""
    for cls in RidgelineError.__subclasses__():
        if cls is not errors.FailedWithLog and cls.__module__ == "ridgeline.errors":
            assert type(error_from(cls.code, "m", cls.http_status)) is cls


def test_a_full_queue_says_when_to_come_back(fake: Any, session: Session, sdk_tools: Any) -> None:
    full = sdk_tools.api_error("Overloaded", "The queue is full.", 429)
    fake.rules["GET /api/zoo"] = sdk_tools.Reply(full.body, 429, {"Retry-After": "7"})
    with pytest.raises(errors.Overloaded) as caught:
        session.api.get("zoo")
    assert caught.value.retry_after_s == 7


def test_the_service_s_hint_comes_through(fake: Any, session: Session, sdk_tools: Any) -> None:
    fake.rules["GET /api/zoo/x"] = sdk_tools.api_error("NotFound", "No 'x'.", 404, "Try 'y'.")
    with pytest.raises(errors.NotFound) as caught:
        session.api.get("zoo", "x")
    assert caught.value.hint == "Try 'y'."


def test_an_error_that_is_no_json(fake: Any, session: Session, sdk_tools: Any) -> None:
    fake.rules["GET /api/zoo"] = sdk_tools.Reply(b"<html>", 502)
    with pytest.raises(errors.InternalError, match="502"):
        session.api.get("zoo")
    fake.rules["GET /api/zoo"] = sdk_tools.Reply(b"<html>", 200)
    with pytest.raises(errors.Unavailable, match="not with JSON"):
        session.api.get("zoo")


def test_nobody_answers(tmp_path: Any, sdk_tools: Any) -> None:
    """The files of a service that was killed are still there: the error says how to start it."""
    data_dir = sdk_tools.write_data_dir(tmp_path / "d", "http://127.0.0.1:1")
    session = Session(data_dir=data_dir)
    with pytest.raises(errors.NotRunning) as caught:
        _ = session.info
    assert f"ridgeline up --data-dir {data_dir}" in caught.value.hint


def test_paths_and_queries_are_quoted_and_signed_as_sent(
    fake: Any, session: Session, sdk_tools: Any
) -> None:
    fake.rules["GET /api/events"] = sdk_tools.Reply({"events": []})
    session.api.get("events", resource="a b/ä&c", limit=3, absent=None)
    call = fake.calls[-1]
    assert call.query == {"resource": ["a b/ä&c"], "limit": ["3"]}
    assert "/us-east-1/sagemaker/aws4_request" in call.headers["authorization"]


def test_a_failed_deploy_shows_cause_log_and_hint() -> None:
    error = errors.DeployFailed("It failed: no memory", log_tail=("one", "two"), hint="Do this.")
    assert str(error) == ("It failed: no memory\nLast lines of its log:\n  one\n  two\nDo this.")


ZOO = ["all-minilm-l6-v2", "smollm2-1-7b", "smollm2-135m", "smollm2-360m", "smollm2-999b", "qwen3"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("smollm2", "Did you mean 'smollm2-1-7b', 'smollm2-135m' or 'smollm2-360m'?"),
        ("smolm2", "Did you mean 'smollm2-1-7b', 'smollm2-135m' or 'smollm2-360m'?"),
        ("SmolLM2-13", "Did you mean 'smollm2-135m'?"),
        ("qwen", "Did you mean 'qwen3'?"),
        ("smollm2-135n", "Did you mean 'smollm2-135m'?"),
        ("mini", "Known: " + ", ".join(sorted(ZOO)) + "."),
    ],
)
def test_what_begins_with_a_name_is_offered(name: str, hint: str) -> None:
    assert errors.did_you_mean(name, ZOO) == hint
