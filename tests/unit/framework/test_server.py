"""The framework server as a real process, spoken to as the gateway does."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

SERVER = (
    Path(__file__).parents[3] / "service/ridgeline_service/serving/framework/server.py"
).resolve()
TOKEN = "secret-token"
PAUSE = threading.Event()  # between two looks at another process


@dataclass
class Replica:
    process: subprocess.Popen[str]
    port: int

    def call(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        given = {"X-Ridgeline-Token": TOKEN}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=given)  # type: ignore[arg-type]
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, raw

    def invoke(self, body: object, **headers: str) -> tuple[int, object]:
        headers.setdefault("Content_Type", "application/json")
        status, _, raw = self.call("POST", "/invocations", body, **headers)
        return status, json.loads(raw)

    def wait_for(self, state: str) -> dict[str, object]:
        """The identity once it is in ``state``."""
        while (identity := self.identity())["state"] != state:
            assert self.process.poll() is None, self.process.communicate()[0]
            PAUSE.wait(0.01)
        return identity

    def identity(self) -> dict[str, object]:
        return json.loads(self.call("GET", "/ridgeline/identity")[2])  # type: ignore[no-any-return]

    def finish(self, number: signal.Signals = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        return self.process.communicate(timeout=20)[0]


Start = Callable[..., Replica]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a server on a model whose code/inference.py is ``code``."""
    running: list[Replica] = []

    def go(code: str | None, *, ready: bool = True, **environment: str) -> Replica:
        model = tmp_path / f"model{len(running)}"
        (model / "code").mkdir(parents=True)
        if code is not None:
            (model / "code" / "inference.py").write_text(textwrap.dedent(code))
        listener = socket.create_server(("127.0.0.1", 0))
        process = subprocess.Popen(
            (sys.executable, "-P", "-u", str(SERVER)),
            env={
                "PATH": os.environ["PATH"],
                "RIDGELINE_LISTEN_FD": str(listener.fileno()),
                "RIDGELINE_REPLICA_ID": "r-1",
                "RIDGELINE_REPLICA_TOKEN": TOKEN,
                "RIDGELINE_MODEL_DIR": str(model),
                **environment,
            },
            pass_fds=(listener.fileno(),),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        replica = Replica(process, listener.getsockname()[1])
        listener.close()
        running.append(replica)
        if ready:
            replica.wait_for("ready")
            assert replica.call("GET", "/ping")[0] == 200
        return replica

    yield go
    for replica in running:
        if replica.process.poll() is None:
            replica.process.kill()
        replica.process.communicate()


ECHO = """
    import os, sys, json

    def model_fn(model_dir):
        return {"dir": model_dir}

    def input_fn(body, content_type):
        return [type(body).__name__, content_type, body if isinstance(body, str) else len(body)]

    def predict_fn(data, model, context):
        attributes = context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")
        return data + [model["dir"], attributes]

    def output_fn(prediction, accept):
        return json.dumps([prediction, accept]), "application/json"
"""


def test_functions_get_what_the_client_sent(start: Start) -> None:
    replica = start(ECHO)
    answer = replica.invoke(
        "hello",
        Content_Type="text/csv",
        Accept="text/csv",
        X_Amzn_SageMaker_Custom_Attributes="a=b",
    )
    status, value = answer
    assert status == 200
    assert value[0][:3] == ["str", "text/csv", "hello"]  # type: ignore[index]
    assert value[0][4] == "a=b"  # type: ignore[index]
    assert value[1] == "text/csv"  # type: ignore[index]


def test_a_binary_body_arrives_as_bytes_even_in_chunks(start: Start) -> None:
    replica = start(ECHO)
    parts = iter([b"\xff\x00" * 5, b"abc"])
    status, value = replica.invoke(parts, Content_Type="application/octet-stream")
    assert status == 200
    assert value[0][:3] == ["bytes", "application/octet-stream", 13]  # type: ignore[index]


def test_the_connection_is_kept_for_the_next_request(start: Start) -> None:
    replica = start(ECHO)
    connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=20)
    for _ in range(3):
        connection.request("GET", "/ping", headers={"X-Ridgeline-Token": TOKEN})
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.read()
        assert not answer.will_close
    connection.close()


@pytest.mark.parametrize("path", ["/ping", "/ridgeline/identity", "/invocations"])
def test_without_the_token_nothing_answers(start: Start, path: str) -> None:
    replica = start(ECHO)
    method = "POST" if path == "/invocations" else "GET"
    status, _, raw = replica.call(method, path, X_Ridgeline_Token="wrong")
    assert status == 403
    assert b"token" in raw


def test_identity_tells_the_stages(start: Start) -> None:
    identity = start(ECHO).identity()
    assert identity["replica_id"] == "r-1"
    assert identity["state"] == "ready"
    names = [stage["name"] for stage in identity["stages"]]  # type: ignore[attr-defined]
    assert names == ["environment import", "model_fn"]
    assert identity["error"] is None


def test_the_port_answers_while_the_model_loads(start: Start) -> None:
    replica = start("import time\ndef model_fn(d):\n    time.sleep(60)\n", ready=False)
    replica.wait_for("loading")
    assert replica.call("GET", "/ping")[0] == 503
    assert replica.call("POST", "/invocations", b"{}")[0] == 503
    replica.finish()
    assert replica.process.returncode == 0


def test_a_load_failure_tells_its_cause_and_exits_with_1(start: Start) -> None:
    replica = start("def model_fn(d):\n    raise OSError('no weights here')\n", ready=False)
    identity = replica.wait_for("failed")
    assert identity["error"]["code"] == "OSError"  # type: ignore[index]
    assert "no weights here" in identity["error"]["message"]  # type: ignore[index]
    log = replica.finish()
    assert replica.process.returncode == 1
    assert "Traceback" in log
    assert "no weights here" in log


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("def transform_fn(m, b, c, a): ...\ndef predict_fn(d, m): ...\n", "either"),
        ("def model_fn(): ...\n", "takes 0 arguments"),
        ("model_fn = 3\n", "not a function"),
        ("import nowhere_to_be_found\n", "nowhere_to_be_found"),
        ("import sys; sys.exit(7)\n", "7"),
        (None, "TorchScript"),
    ],
)
def test_a_broken_module_is_a_failure_with_the_reason(
    start: Start, code: str | None, cause: str
) -> None:
    replica = start(code, ready=False)
    identity = replica.wait_for("failed")
    assert cause in identity["error"]["message"]  # type: ignore[index]


def test_a_package_that_is_not_there_is_named_with_where_to_ask_for_it(start: Start) -> None:
    replica = start("import nowhere_to_be_found.deep", ready=False)
    identity = replica.wait_for("failed")
    assert "Add nowhere_to_be_found to code/requirements.txt" in identity["error"]["hint"]  # type: ignore[index]


def test_a_program_that_is_named_and_missing_is_a_failure(start: Start) -> None:
    replica = start(ECHO, ready=False, SAGEMAKER_PROGRAM="serve.py")
    identity = replica.wait_for("failed")
    assert "serve.py" in identity["error"]["message"]  # type: ignore[index]


def test_user_errors_are_500_with_the_message_and_a_traceback_in_the_log_only(
    start: Start,
) -> None:
    replica = start("""
        def model_fn(d): return None
        def transform_fn(model, body, content_type, accept):
            raise KeyError("my own fault")
    """)
    status, value = replica.invoke("{}")
    assert status == 500
    assert "my own fault" in value["message"]  # type: ignore[index]
    assert "Traceback" not in str(value)
    assert replica.invoke("{}")[0] == 500
    log = replica.finish()
    assert log.count("Traceback") == 2
    assert "transform_fn" in log


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("return 'x', '\\N{SNOWMAN}'", "Content-Type"),
        ("return 'x', 'text/plain\\0'", "Content-Type"),
        ("return 'x', 'a\\r\\nevil: 1'", "Content-Type"),
        ("return 'x', 'a' * 100_000", "Content-Type"),
        ("return iter(['x', 'y']), '\\N{SNOWMAN}'", "Content-Type"),
        ("context.set_response_header('x-a', '\\N{SNOWMAN}'); return 'x'", "x-a"),
        ("context.set_response_header('x a', '1'); return 'x'", "x a"),
        ("context.set_response_header('content-length', '7'); return 'x'", "content-length"),
        ("context.set_response_status(99); return 'x'", "99"),
        ("context.set_response_status('OK'); return 'x'", "OK"),
    ],
)
def test_an_answer_that_http_cannot_carry_is_an_error_of_the_models_code(
    start: Start, says: str, told: str
) -> None:
    replica = start(f"""
        def model_fn(d): return None
        def transform_fn(model, body, content_type, accept, context):
            if body == "well":
                context.set_response_header("x-count", 5)
                return "said", "text/plain; charset=utf-8"
            {says}
    """)
    status, value = replica.invoke("{}")
    assert status == 500
    assert "cannot be" in value["message"]  # type: ignore[index]
    assert told in value["message"]  # type: ignore[index]
    assert len(value["message"]) < 300  # type: ignore[index]
    status, headers, raw = replica.call("POST", "/invocations", b"well")
    assert (status, headers["x-count"], raw) == (200, "5", b"said")


STREAM = """
    import time

    def model_fn(d): return None

    def transform_fn(model, body, content_type, accept):
        count = int(body)
        if count < 0:
            raise ValueError("negative")
        def parts():
            for i in range(count):
                if i == 3:
                    raise RuntimeError("broke in the middle")
                yield f"part {i}\\n"
        return parts(), "text/plain"
"""


def test_a_generator_is_streamed_in_parts(start: Start) -> None:
    status, headers, raw = start(STREAM).call("POST", "/invocations", b"3")
    assert status == 200
    assert headers["transfer-encoding"] == "chunked"
    assert headers["content-type"] == "text/plain"
    assert raw == b"part 0\npart 1\npart 2\n"


def test_a_stream_that_breaks_is_seen_as_broken(start: Start) -> None:
    replica = start(STREAM)
    with pytest.raises(http.client.IncompleteRead):
        replica.call("POST", "/invocations", b"9")
    assert replica.call("POST", "/invocations", b"1")[0] == 200
    assert "broke in the middle" in replica.finish()


def test_a_client_that_leaves_ends_the_stream(start: Start) -> None:
    replica = start("""
        def model_fn(d): return {"closed": False}
        def transform_fn(model, body, content_type, accept):
            if body == "ask":
                return str(model["closed"]), "text/plain"
            def parts():
                try:
                    while True:
                        yield b"x" * 65536
                finally:
                    model["closed"] = True
            return parts()
    """)
    connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=20)
    connection.request("POST", "/invocations", b"go", {"X-Ridgeline-Token": TOKEN})
    assert connection.getresponse().read(10) == b"x" * 10
    connection.close()
    # The one worker is free again only when the stream was given up.
    assert replica.call("POST", "/invocations", b"ask")[2] == b"True"


def test_user_code_is_not_called_twice_at_a_time_unless_asked(start: Start) -> None:
    code = """
        import threading
        lock = threading.Lock()
        both = threading.Barrier(2)
        def model_fn(d): return None
        def transform_fn(model, body, content_type, accept):
            if body == "meet":
                both.wait(timeout=10)
                return "met"
            alone = lock.acquire(blocking=False)
            if alone:
                threading.Event().wait(0.02)
                lock.release()
            return str(alone)
    """
    with ThreadPoolExecutor(4) as pool:
        one = start(code)
        answers = pool.map(lambda _: one.call("POST", "/invocations", b"x")[2], range(8))
        assert set(answers) == {b"True"}
        two = start(code, SAGEMAKER_MODEL_SERVER_WORKERS="2")
        answers = pool.map(lambda _: two.call("POST", "/invocations", b"meet")[2], range(2))
        assert set(answers) == {b"met"}


def test_a_request_that_takes_too_long_is_given_up(start: Start) -> None:
    replica = start(
        """
        import threading
        def model_fn(d): return None
        def transform_fn(model, body, content_type, accept):
            threading.Event().wait(30)
        """,
        SAGEMAKER_MODEL_SERVER_TIMEOUT="0.2",
    )
    status, value = replica.invoke("{}")
    assert status == 500
    assert "0.2 s" in value["message"]  # type: ignore[index]
    status, value = replica.invoke("{}")
    assert status == 503
    assert "busy" in value["message"]  # type: ignore[index]


def test_sigterm_finishes_what_is_in_flight(start: Start) -> None:
    replica = start("""
        import os, signal, threading
        def model_fn(d): return None
        def transform_fn(model, body, content_type, accept):
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(0.3)
            return "done"
    """)
    assert replica.call("POST", "/invocations", b"{}")[2] == b"done"
    assert replica.process.wait(timeout=20) == 0


def test_a_body_over_the_limit_is_refused(start: Start) -> None:
    replica = start(ECHO, SAGEMAKER_MAX_PAYLOAD_IN_MB="0.001")
    status, _, raw = replica.call("POST", "/invocations", b"x" * 2000)
    assert status == 413
    assert b"1048" in raw


def test_our_packages_and_folders_are_no_part_of_the_users_path(start: Start) -> None:
    replica = start("""
        import json, sys
        def model_fn(d): return None
        def transform_fn(model, body, content_type, accept):
            return json.dumps(sys.path)
    """)
    _, path = replica.invoke("{}")
    assert not [part for part in path if "ridgeline_service" in part]  # type: ignore[attr-defined]
    assert path[0].endswith("/code")  # type: ignore[index]


def test_the_log_says_what_runs_here(start: Start) -> None:
    log = start(ECHO).finish()
    assert f"Python {sys.version.split()[0]}" in log
    assert "pytorch-inference" in log


def test_torch_defaults_serve_a_torchscript_model(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "make.py"
    script.write_text(
        "import sys, torch\n"
        "m = torch.nn.Linear(2, 1, bias=False)\n"
        "torch.nn.init.ones_(m.weight)\n"
        "torch.jit.save(torch.jit.script(m), sys.argv[1])\n"
    )
    target = tmp_path / "model0"
    (target / "code").mkdir(parents=True)
    subprocess.run(
        (sys.executable, "-W", "ignore", str(script), str(target / "model.pt")), check=True
    )
    (target / "code").rmdir()
    made = target.rename(tmp_path / "made")
    replica = start(None, RIDGELINE_MODEL_DIR=str(made), RIDGELINE_THREADS="1")
    assert replica.invoke("[[1, 2], [3, 4]]") == (200, [[3.0], [7.0]])
    status, headers, raw = replica.call(
        "POST", "/invocations", b"1,2\n3,4\n", Content_Type="text/csv", Accept="text/csv"
    )
    assert (status, headers["content-type"], raw) == (200, "text/csv", b"3.0\n7.0\n")
    assert replica.invoke("x", Content_Type="application/xml")[0] == 415
    assert replica.invoke("[1, 2]", Accept="image/png")[0] == 406
    assert replica.invoke("{not json")[0] == 400
    assert replica.invoke('{"a": 1}')[0] == 400
