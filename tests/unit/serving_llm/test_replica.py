"""The life of a replica over HTTP: token, readiness, failure, disconnects, draining."""

from __future__ import annotations

from threading import Event, Thread
from typing import Any

import pytest

from ridgeline_service.replica_protocol import UNSERVED_HEADER
from ridgeline_service.serving.llm.errors import InvalidSetting
from ridgeline_service.serving.llm.model import TextModel
from ridgeline_service.serving.llm.replica import Replica, State
from ridgeline_service.serving.llm.server import Binding

STREAM = b'{"prompt": "x", "stream": true, "n": 3}'
HEADERS = {"X-Ridgeline-Token": "replica-secret"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/ping"),
        ("GET", "/ridgeline/identity"),
        ("GET", "/ridgeline/metrics"),
        ("GET", "/nowhere"),
        ("POST", "/invocations"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
    ],
)
@pytest.mark.parametrize("token", [None, "", "replica-secre", "replica-secret2"])
def test_no_route_answers_without_the_token(
    served: Any, method: str, path: str, token: str | None
) -> None:
    reply = served.call(method, path, {"prompt": "x"}, token=token)

    assert reply.status == 401
    assert served.engine.submitted == []


def test_it_answers_while_the_model_loads(start: Any) -> None:
    loaded = Event()
    served = start(hold_loading=loaded)

    assert served.call("GET", "/ping").status == 503
    identity = served.call("GET", "/ridgeline/identity").json
    assert (identity["replica_id"], identity["state"]) == ("replica-1", "starting")
    assert (identity["task"], identity["error"]) == ("", None)
    reply = served.post("/v1/completions", {"prompt": "x"})
    assert reply.status == 503
    assert "retry-after" in reply.headers


def test_a_ready_replica(served: Any) -> None:
    assert served.call("GET", "/ping").status == 200
    identity = served.call("GET", "/ridgeline/identity").json
    assert (identity["state"], identity["task"]) == ("ready", "text-generation")
    assert identity["in_flight"] == 0
    served.post("/v1/completions", {"prompt": "x"})
    metrics = served.call("GET", "/ridgeline/metrics").json
    assert metrics["engine"]["total_blocks"] == 8
    assert metrics["requests"]["/v1/completions"] >= 1


def test_a_failed_load_is_told_then_ends_with_exit_code_1(start: Any, capfd: Any) -> None:
    served = start(fail=InvalidSetting("OPTION_DTYPE=int3 is not supported.", hint="Allowed: x."))
    # The loading thread fails at once; the server lingers long enough to be asked.
    served.server._loading.join(10)
    identity = served.server.replica.identity()

    assert identity["state"] == "failed"
    assert identity["error"] == {
        "code": "InvalidSetting",
        "message": "OPTION_DTYPE=int3 is not supported.",
        "hint": "Allowed: x.",
    }
    assert capfd.readouterr().err == (
        "InvalidSetting: OPTION_DTYPE=int3 is not supported. Allowed: x.\n"
    )
    served.server.stop()
    assert served.server.exit_code == 1


def test_a_wrong_setting_has_no_traceback_and_a_surprise_has(
    start: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    wrong = start(fail=InvalidSetting("OPTION_MAX_MODEL_LEN=nonsense is not valid."))
    wrong.server._loading.join(10)
    assert caplog.records == []

    surprise = start(fail=ZeroDivisionError("deep within"))
    surprise.server._loading.join(10)
    assert "Traceback" in caplog.text
    assert "ZeroDivisionError: deep within" in capfd.readouterr().err


def test_the_log_says_what_coming_up_took() -> None:
    times = iter([10.0, 11.7, 11.7, 12.5, 12.5, 13.1, 13.1])
    replica = Replica("r", lambda: next(times))
    for name in ("import", "load", "warm-up"):
        with replica.stage(name, State.LOADING):
            pass

    assert replica.summary() == "Ready in 3.1 s: import 1.7 s, load 0.8 s, warm-up 0.6 s"


def test_what_uvicorn_says_to_people_at_a_terminal_is_not_logged(
    start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    start()

    assert "CTRL+C" not in caplog.text
    assert "Ready in " in caplog.text


def test_a_replica_whose_device_failed_begins_nothing_and_says_so(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = "NRT_EXEC_UNIT_UNRECOVERABLE status=101"
    monkeypatch.setattr(TextModel, "broken", property(lambda model: lost))
    refused = served.call("POST", "/v1/completions", STREAM)
    assert refused.status == 503
    assert refused.headers[UNSERVED_HEADER] == "1"
    assert lost in refused.json["error"]["message"]
    # It can still be told to be whole again.
    assert served.call("POST", "/ridgeline/faults", {"kind": ""}).status != 503

    monkeypatch.undo()
    answer = served.call("POST", "/v1/completions", STREAM)
    assert answer.status == 200
    assert UNSERVED_HEADER not in answer.headers


def test_unknown_routes_and_methods(served: Any) -> None:
    unknown = served.call("GET", "/v1/engines")
    assert unknown.status == 404
    assert "/v1/completions" in unknown.json["error"]["message"]
    assert served.call("GET", "/invocations").status == 405
    assert served.call("POST", "/ping").status == 405


def test_a_client_that_leaves_takes_all_its_sequences_with_it(served: Any) -> None:
    served.engine.script.hold_after = 2
    connection = served.connect()
    connection.request("POST", "/v1/completions", STREAM, HEADERS)
    answer = connection.getresponse()
    assert answer.read(10)
    assert served.call("GET", "/ridgeline/identity").json["in_flight"] == 1

    answer.close()
    connection.close()

    assert served.engine.wait_cancelled(3)


def test_leaving_before_the_answer_cancels_too(served: Any) -> None:
    served.engine.script.hold_after = 0
    connection = served.connect()
    connection.request("POST", "/v1/completions", b'{"prompt": "x", "n": 2}', HEADERS)
    assert served.engine.wait_submitted(2)
    connection.close()

    assert served.engine.wait_cancelled(2)


def test_stopping_lets_what_is_in_flight_finish(start: Any) -> None:
    served = start()
    served.engine.script.hold_after = 2
    served.engine.script.text = "abc"
    connection = served.connect()
    connection.request("POST", "/v1/completions", b'{"prompt": "x", "stream": true}', HEADERS)
    answer = connection.getresponse()
    assert answer.read(1)
    drained = Event()

    def finish() -> None:
        answer.read()
        drained.set()

    reader = Thread(target=finish, daemon=True)
    reader.start()
    served.server.stop()
    assert not drained.is_set()
    # The engine speaks its last word, and only then may the server be gone.
    served.engine.cancel(served.engine.submitted[0].sequence_id)
    assert drained.wait(20)
    assert served.server.exit_code == 0
    reader.join(20)
    answer.close()
    connection.close()


def test_the_launchers_variables_are_checked_by_name() -> None:
    with pytest.raises(InvalidSetting, match="RIDGELINE_REPLICA_TOKEN"):
        Binding.read({"SAGEMAKER_BIND_TO_PORT": "80"})
    with pytest.raises(InvalidSetting, match="SAGEMAKER_BIND_TO_PORT=x"):
        Binding.read({"SAGEMAKER_BIND_TO_PORT": "x", "RIDGELINE_REPLICA_TOKEN": "t"})
