"""``/api``: answers, errors of one shape, and schemathesis finding nothing to complain about."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable


def api(direct: Any, method: str, path: str, body: object = None, query: str = "") -> Any:
    return direct.send(
        method,
        path,
        service="api",
        headers={"content-type": "application/json"} if body is not None else {},
        body=b"" if body is None else json.dumps(body).encode(),
        query=query.encode(),
    )


def refused(answer: Any, status: int) -> dict[str, str]:
    assert answer.status == status
    assert set(answer.json) == {"error"}
    assert set(answer.json["error"]) == {"code", "message", "hint"}
    return dict(answer.json["error"])


def test_the_zoo(direct) -> None:
    assert [card["id"] for card in api(direct, "GET", "/api/zoo").json["models"]] == ["tiny"]
    assert api(direct, "GET", "/api/zoo", query="q=nothing").json == {"models": []}
    card = api(direct, "GET", "/api/zoo/tiny").json
    assert card["environment"] == {"HF_MODEL_ID": "tiny"}
    assert card["parameters"] == 7
    assert refused(api(direct, "GET", "/api/zoo/tony"), 404)["hint"] == "Did you mean 'tiny'?"
    assert api(direct, "GET", "/api/zoo/org/Tiny").json["id"] == "tiny"
    assert refused(api(direct, "GET", "/api/zoo/a/b/c"), 400)


def test_keys_are_made_listed_and_revoked(direct) -> None:
    made = api(direct, "POST", "/api/keys", {"name": "ci"})
    assert made.status == 201
    assert made.json["api_key"] == "rl-x"
    listed = api(direct, "GET", "/api/keys").json["keys"]
    assert [(key["key_id"], key["name"]) for key in listed] == [(made.json["key_id"], "ci")]
    assert refused(api(direct, "POST", "/api/keys", {"name": "ci"}), 409)
    gone = api(direct, "DELETE", f"/api/keys/{made.json['key_id']}")
    assert (gone.status, gone.body) == (204, b"")
    assert refused(api(direct, "DELETE", f"/api/keys/{made.json['key_id']}"), 404)


def test_an_endpoint_and_its_stages(direct, control) -> None:
    control.endpoints.rows["e"] = {"EndpointName": "e"}
    state = api(direct, "GET", "/api/endpoints/e").json
    assert state["stages"] == [{"name": "load", "seconds": 1.5, "state": "done", "detail": ""}]
    assert state["replicas"][0]["log_stream"] == "v/r1"
    assert refused(api(direct, "GET", "/api/endpoints/none"), 404)["code"] == "NotFound"


def test_simulated_devices_are_shown_and_break_down(direct, control) -> None:
    [replica] = api(direct, "GET", "/api/endpoints/simulated/simulated").json["replicas"]
    assert replica["device"]["instance_type"] == "inf2.xlarge"
    path, fault = "/api/endpoints/simulated/faults", {"kind": "core-hang", "after": 10}
    assert api(direct, "POST", path, fault).json == {"replicas": ["r1"]}
    assert control.simulated.faults == [{**fault, "every": 0, "replica": ""}]
    assert refused(api(direct, "GET", "/api/endpoints/none/simulated"), 404)["code"] == "NotFound"
    for wrong in ({"kind": "core-hang", "after": -1}, {"kind": "x" * 65}, {"kind": "", "afer": 1}):
        assert refused(api(direct, "POST", path, wrong), 400)["code"] == "InvalidInput"


def test_events_and_facts(direct) -> None:
    event = api(direct, "GET", "/api/events", query="resource=m&limit=5").json["events"][0]
    assert event["change"] == "Created"
    facts = api(direct, "GET", "/api/info").json
    assert facts["default_bucket"] == "sagemaker-us-east-1-123456789012"
    assert "CreateModel" in facts["supported_operations"]["sagemaker"]


@pytest.mark.parametrize(
    ("method", "path", "body", "query", "names"),
    [
        ("POST", "/api/keys", {"nam": "x"}, "", "name"),
        ("POST", "/api/keys", {"name": "x", "admin": True}, "", "admin"),
        ("POST", "/api/keys", {"name": 5}, "", "name"),
        ("POST", "/api/keys", {"name": "x", "tokens_per_minute": 0}, "", "tokens_per_minute"),
        ("POST", "/api/keys", {"name": "x", "tokens_per_minute": True}, "", "tokens_per_minute"),
        ("POST", "/api/keys", {"name": "x", "requests_per_minute": "1"}, "", "requests_per_minute"),
        ("POST", "/api/keys", {"name": "\0"}, "", "name"),
        ("POST", "/api/keys", [], "", "body"),
        ("GET", "/api/events", None, "limit=0", "limit"),
        ("GET", "/api/events", None, "limit=" + "9" * 4400, "limit"),
        ("GET", "/api/events", None, "lmit=5", "lmit"),
        ("GET", "/api/zoo", None, "q=%00", "q"),
        ("GET", "/api/endpoints/a\0b", None, "", "null"),
        ("GET", "/api/endpoints/" + "a" * 64, None, "", "name"),
        ("GET", "/api/zoo/..", None, "", "card_id"),
    ],
)
def test_bad_input_is_named(
    direct, method: str, path: str, body: object, query: str, names: str
) -> None:
    assert names in refused(api(direct, method, path, body, query), 400)["message"]


def test_other_methods_are_told_which_are_allowed(direct) -> None:
    answer = api(direct, "PUT", "/api/keys")
    assert refused(answer, 405)["code"] == "MethodNotAllowed"
    assert answer.headers["allow"] == "GET, POST"
    assert api(direct, "POST", "/api/info").headers["allow"] == "GET"
    assert refused(api(direct, "GET", "/api/nothing"), 404)["hint"]
    assert refused(api(direct, "GET", "/api"), 404)


def test_a_bug_is_an_answer_too(direct, control, monkeypatch) -> None:
    monkeypatch.setattr(control, "zoo", None)
    error = refused(api(direct, "GET", "/api/zoo"), 500)
    assert error["code"] == "InternalError"
    assert "NoneType" not in str(error)


MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]


@pytest.mark.parametrize("mode", MODES)
def test_schemathesis_finds_nothing(served, mode: schemathesis.GenerationMode) -> None:
    headers = {"X-Ridgeline-Internal": "internal", "X-Ridgeline-Service": "api"}
    schema = schemathesis.openapi.from_url(f"{served.url}/api/openapi.json", headers=headers)
    checked = set()
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=20,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(mode))
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=headers)
            checked.add(case.operation.label)

        try:
            check()
        except Unsatisfiable:  # a route without parameters cannot be called wrongly
            assert mode == schemathesis.GenerationMode.NEGATIVE
    assert len(checked) == (10 if mode == schemathesis.GenerationMode.POSITIVE else 8)
