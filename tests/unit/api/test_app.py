"""Who is let in, what is told apart, and how errors look on each path."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest

from ridgeline.errors import NotFound, Unavailable
from ridgeline_service.api import app as app_module
from ridgeline_service.api.app import Lifecycle
from ridgeline_service.errors import ThrottlingException


def test_health_needs_no_key(direct) -> None:
    answer = direct.send("GET", "/healthz", key=None)
    assert (answer.status, answer.json) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/", "/api/info", "/api/openapi.json", "/metrics", "/x"])
@pytest.mark.parametrize("key", [None, "", "wrong", "internal2", "\xff"])
def test_nothing_else_answers_without_the_internal_key(direct, path: str, key: str | None) -> None:
    answer = direct.send("GET", path, key=key)
    assert answer.status == 403
    assert answer.json["error"]["code"] == "AccessDeniedException"


def test_a_target_of_another_service_is_out_of_scope(direct) -> None:
    answer = direct.send(
        "POST",
        "/",
        service="sagemaker",
        headers={"x-amz-target": "Logs_20140328.DescribeLogGroups"},
        body=b"{}",
    )
    assert answer.status == 403
    assert answer.json["__type"] == "InvalidSignatureException"
    assert "'logs'" in answer.json["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"3", b'{"a":NaN}', b"\xff", b"[" * 99_999])
def test_a_body_that_is_no_structure(direct, body: bytes) -> None:
    answer = direct.call("CreateModel", body)
    assert answer.status == 400
    assert answer.json["__type"] == "SerializationException"


@pytest.mark.parametrize(
    "body", [b"[" * 99_999, b'{"Tags":' + b"[" * 9_999 + b"]" * 9_999 + b"}", b'{"a":' * 99_999]
)
def test_a_body_that_is_too_deep_is_told_so(direct, body: bytes) -> None:
    answer = direct.call("CreateModel", body)
    assert (answer.status, answer.json["__type"]) == (400, "SerializationException")
    assert answer.json["message"] == "The body is nested too deeply."


def test_an_empty_body_is_an_empty_request(direct) -> None:
    assert direct.call("ListModels", b"").status == 200
    assert direct.call("DescribeModel", b"").json["__type"] == "ValidationException"


def test_operations_without_output_answer_with_an_empty_body(direct, control) -> None:
    control.models.rows["gone"] = {"ModelName": "gone"}
    assert direct.call("DeleteModel", {"ModelName": "gone"}).body == b""


def test_unknown_paths_and_services_are_named(direct) -> None:
    answer = direct.send("PUT", "/BatchPutMetrics")
    assert answer.json["__type"] == "UnknownOperationException"
    assert "'/BatchPutMetrics'" in answer.json["message"]
    answer = direct.send("POST", "/", service="ec2", body=b"Action=DescribeRegions")
    assert "does not serve 'ec2'" in answer.json["message"]


def test_a_presigned_question_who_am_i(direct) -> None:
    query = b"Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Signature=0&X-Amz-Expires=60"
    answer = direct.send("GET", "/", service="sts", query=query)
    assert answer.status == 200
    assert b"<Account>123456789012</Account>" in answer.body


@pytest.mark.parametrize("path", ["/", "/api/keys"])
def test_a_body_beyond_the_limit(direct, path: str, monkeypatch) -> None:
    monkeypatch.setattr(app_module, "MAX_BODY_BYTES", 10)
    answer = direct.send("POST", path, headers={"x-amz-target": "SageMaker.X"}, body=b"x" * 11)
    assert answer.status == 413
    assert b"RequestEntityTooLarge" in answer.body


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(b"{}", mtime=0), 200),
        (b"not gzip", 400),
        (gzip.compress(b"{}", mtime=0)[:-3], 400),
        (gzip.compress(b" " * 9_000_000, mtime=0), 413),
    ],
)
def test_gzip_bodies(direct, body: bytes, status: int) -> None:
    headers = {"x-amz-target": "SageMaker.ListModels", "content-encoding": "gzip"}
    assert direct.send("POST", "/", headers=headers, body=body).status == status


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFound("no such thing", hint="Look again."), 404, "NotFound"),
        (Unavailable("the database is away"), 503, "Unavailable"),
        (ThrottlingException("slow down"), 429, "ThrottlingException"),
    ],
)
def test_errors_of_verbs_keep_code_status_and_hint(
    direct, control, monkeypatch, error: Any, status: int, code: str
) -> None:
    # Handlers are bound when the application is built: the fault is planted under the verb.
    monkeypatch.setattr(control.models, "rows", _Failing(error))
    answer = direct.call("ListModels", {})
    assert answer.status == status
    assert answer.json["__type"] == code
    assert answer.json["message"] == f"{error.message} {error.hint}".strip()


class _Failing(dict[str, Any]):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def __iter__(self) -> Any:
        raise self._error


def test_a_bug_shows_no_traceback_and_leaves_one_in_the_log(
    direct, control, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(control.models, "rows", _Failing(ZeroDivisionError("secret detail")))
    answer = direct.call("ListModels", {})
    assert answer.status == 500
    assert answer.json["__type"] == "InternalFailure"
    assert "secret detail" not in answer.body.decode()
    assert answer.headers["x-amzn-requestid"] in answer.json["message"]
    assert "secret detail" in caplog.text
    assert answer.headers["x-amzn-requestid"] in caplog.text


def test_calls_are_counted(direct) -> None:
    direct.call("ListEndpoints", {})
    text = direct.send("GET", "/metrics").body.decode()
    labels = 'code="",operation="ListEndpoints",service="sagemaker"'
    assert f"ridgeline_api_calls_total{{{labels}}}" in text


def test_made_up_names_make_no_new_series(direct) -> None:
    direct.send("POST", "/", headers={"x-amz-target": "SageMaker.Invented"})
    direct.send("POST", "/", service="invented")
    assert "nvented" not in direct.send("GET", "/metrics").body.decode()


def run_lifespan(app: Any, *messages: str) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    queue = [{"type": message} for message in messages]

    async def receive() -> dict[str, Any]:
        return queue.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app({"type": "lifespan"}, receive, send))
    return sent


def make(lifecycle: Lifecycle) -> Any:
    return app_module.App(
        dispatcher=None,  # type: ignore[arg-type]
        rest=None,  # type: ignore[arg-type]
        internal_key="k",
        metrics=None,  # type: ignore[arg-type]
        lifecycle=lifecycle,
    )


def test_the_control_plane_starts_and_stops_with_the_server() -> None:
    happened: list[str] = []
    app = make(Lifecycle(lambda: happened.append("start"), lambda: happened.append("stop")))
    sent = run_lifespan(app, "lifespan.startup", "lifespan.shutdown")
    assert happened == ["start", "stop"]
    assert [m["type"] for m in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


def test_a_failed_start_is_told_to_the_server() -> None:
    def fail() -> None:
        raise Unavailable("the database is away")

    sent = run_lifespan(make(Lifecycle(fail, lambda: None)), "lifespan.startup")
    assert sent == [{"type": "lifespan.startup.failed", "message": "the database is away"}]


def test_a_caller_that_leaves_early_is_no_error(app) -> None:
    sent: list[object] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": [(b"x-ridgeline-internal", b"internal")],
    }
    asyncio.run(app(scope, receive, send))
    assert sent == []
