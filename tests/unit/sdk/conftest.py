"""A service in this process that answers like the real one, and a clock that nobody waits for."""

from __future__ import annotations

import json
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from typer.testing import CliRunner, Result

from ridgeline._progress import SilentProgress
from ridgeline.cli import _common
from ridgeline.cli.app import app
from ridgeline.session import Session

ACCESS_KEY = "RLKEYOFDIRECTORY"
ROLE = "arn:aws:iam::123456789012:role/RidgelineExecution"
BUCKET = "sagemaker-us-east-1-123456789012"


@dataclass
class FakeClock:
    now: float = 1_700_000_000.0
    slept: list[float] = field(default_factory=list)
    on_sleep: Callable[[], None] | None = None

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        if self.on_sleep is not None:
            self.on_sleep()
        if len(self.slept) > 10_000:
            raise AssertionError("the wait never ends")


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    body: bytes | dict[str, Any] | list[Any] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def aws_error(code: str, message: str, status: int = 400, **headers: str) -> Reply:
    return Reply({"__type": code, "message": message}, status, headers)


def api_error(code: str, message: str, status: int, hint: str = "") -> Reply:
    return Reply({"error": {"code": code, "message": message, "hint": hint}}, status)


class FakeService:
    """Answers by rule: an operation (``CreateModel``) or a route (``GET /api/info``).

    A rule is a Reply, a function of the Call, or a list of which one is used a call, the last one
    staying. Objects of S3 are kept as they come. Everything that arrives is in ``calls``.
    """

    def __init__(self) -> None:
        self.reset()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def reset(self) -> None:
        self.calls: list[Call] = []
        self.rules: dict[str, Any] = {}
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.buckets: set[str] = {BUCKET}
        self.rules["GET /api/info"] = Reply(
            {"region": "us-east-1", "role_arn": ROLE, "default_bucket": BUCKET}
        )
        absent = aws_error("ValidationException", "Requested resource not found.")
        for kind in ("Training", "Processing", "Transform"):
            self.rules[f"Describe{kind}Job"] = absent
            self.rules[f"List{kind}Jobs"] = Reply({f"{kind}JobSummaries": []})
        self.rules["DescribeHyperParameterTuningJob"] = aws_error(
            "ResourceNotFound", "Amazon SageMaker can't find a tuning job with that name."
        )
        no_tuning = Reply({"HyperParameterTuningJobSummaries": []})
        self.rules["ListHyperParameterTuningJobs"] = no_tuning

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def on(self, rule: str, *replies: Any) -> None:
        self.rules[rule] = list(replies)

    def operations(self) -> list[str]:
        """Names of the AWS operations that were called, in order."""
        targets = (call.headers.get("x-amz-target", "") for call in self.calls)
        return [target.partition(".")[2] for target in targets if target]

    def requests(self, operation: str) -> list[Any]:
        """Bodies of the calls of one operation."""
        return [
            call.json
            for call in self.calls
            if call.headers.get("x-amz-target", "").endswith("." + operation)
        ]

    def endpoint(self, name: str, *views: Any, config: str | None = None) -> None:
        """Have an endpoint: ``views`` are successive answers of /api/endpoints (or statuses)."""
        replies = [
            Reply({"name": name, "status": view} if isinstance(view, str) else view)
            for view in views or ("InService",)
        ]
        self.rules[f"GET /api/endpoints/{name}"] = replies
        self.on(
            "DescribeEndpoint",
            Reply(
                {
                    "EndpointName": name,
                    "EndpointArn": f"arn:aws:sagemaker:us-east-1:123456789012:endpoint/{name}",
                    "EndpointConfigName": config or name,
                    "EndpointStatus": "InService",
                    "CreationTime": 1.7e9,
                    "LastModifiedTime": 1.7e9,
                }
            ),
        )
        self.on(
            "DescribeEndpointConfig",
            Reply(
                {
                    "EndpointConfigName": config or name,
                    "EndpointConfigArn": "arn:aws:sagemaker:us-east-1:123456789012:x/y",
                    "CreationTime": 1.7e9,
                    "ProductionVariants": [
                        {
                            "VariantName": "AllTraffic",
                            "ModelName": f"{name}-model",
                            "InitialInstanceCount": 1,
                            "InstanceType": "ml.m5.large",
                        }
                    ],
                }
            ),
        )

    def answer(self, call: Call) -> Reply:
        self.calls.append(call)
        target = call.headers.get("x-amz-target", "").partition(".")[2]
        rule = self.rules.get(target or f"{call.method} {call.path}")
        if rule is None and target:
            return Reply(_EMPTY.get(target, {}))
        if rule is None and call.path.startswith("/api/"):
            return api_error("NotFound", f"There is nothing at {call.path!r}.", 404)
        if rule is None:
            return self._object(call)
        if isinstance(rule, list):
            rule = rule.pop(0) if len(rule) > 1 else rule[0]
        reply: Reply = rule(call) if callable(rule) else rule
        return reply

    def _object(self, call: Call) -> Reply:
        bucket, _, key = call.path.lstrip("/").partition("/")
        name = f"{bucket}/{key}"
        if call.method == "PUT" and not key:
            self.buckets.add(bucket)
            return Reply()
        if call.method == "PUT":
            self.objects[name] = (call.body, call.headers.get("content-type", ""))
            return Reply(headers={"ETag": '"x"'})
        if call.method == "DELETE":
            self.objects.pop(name, None)
            return Reply(status=204)
        if not key and bucket in self.buckets:
            return Reply()
        if name not in self.objects:
            code = "NoSuchKey" if key else "NoSuchBucket"
            return Reply(f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode(), 404)
        body, content_type = self.objects[name]
        return Reply(body, headers={"Content-Type": content_type, "ETag": '"x"'})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                path = unquote(parts.path)
                reply = fake.answer(Call(self.command, path, parse_qs(parts.query), headers, body))
                content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body)
                raw = content if isinstance(content, bytes) else content.encode()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(raw)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve

            def log_message(self, format: str, *args: Any) -> None:
                return

        return Handler


_EMPTY: dict[str, Any] = {
    "CreateModel": {"ModelArn": "arn:aws:sagemaker:us-east-1:123456789012:model/x"},
    "CreateEndpoint": {"EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/x"},
    "UpdateEndpoint": {"EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/x"},
    "CreateEndpointConfig": {
        "EndpointConfigArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint-config/x"
    },
}


def event_stream(*parts: bytes, error: tuple[str, str] | None = None) -> bytes:
    """Parts as InvokeEndpointWithResponseStream frames them; an error ends the stream."""
    frames = [_frame({":message-type": "event", ":event-type": "PayloadPart"}, p) for p in parts]
    if error is not None:
        headers = {":message-type": "exception", ":exception-type": error[0]}
        frames.append(_frame(headers, json.dumps({"Message": error[1]}).encode()))
    return b"".join(frames)


def _frame(headers: dict[str, str], payload: bytes) -> bytes:
    block = b"".join(
        struct.pack("!B", len(name))
        + name.encode()
        + b"\x07"
        + struct.pack("!H", len(value))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(block) + len(payload), len(block))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + block + payload
    return message + struct.pack("!I", zlib.crc32(message))


def write_data_dir(root: Path, url: str, *, access_key: str = ACCESS_KEY) -> Path:
    """What ``ridgeline up`` leaves in a data directory, as far as clients read it."""
    (root / "run").mkdir(parents=True)
    (root / "run" / "supervisor.json").write_text(json.dumps({"url": url}))
    key = {"access_key_id": access_key, "secret_access_key": "s3cret", "api_key": "rk-x"}
    (root / "root-key.json").write_text(json.dumps(key))
    return root


@pytest.fixture(scope="session")
def _fake() -> Iterator[FakeService]:
    service = FakeService()
    yield service
    service.close()


@pytest.fixture
def fake(_fake: FakeService) -> FakeService:
    _fake.reset()
    return _fake


@pytest.fixture(scope="session")
def _session(_fake: FakeService, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """One session for all tests: making boto3 clients is what takes long here."""
    data_dir = write_data_dir(tmp_path_factory.mktemp("service") / "data", _fake.url)
    return Session(data_dir=data_dir, progress=SilentProgress(), environ={})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def session(_session: Session, fake: FakeService, clock: FakeClock) -> Session:
    _session.clock = clock
    _session.progress = SilentProgress()
    return _session


@pytest.fixture
def sdk_tools() -> type:
    """The helpers of this file, for tests: test folders here are not packages."""

    class Tools:
        Reply = Reply
        Call = Call
        FakeClock = FakeClock
        access_key = ACCESS_KEY
        role = ROLE
        bucket = BUCKET
        aws_error = staticmethod(aws_error)
        api_error = staticmethod(api_error)
        event_stream = staticmethod(event_stream)
        write_data_dir = staticmethod(write_data_dir)

    return Tools


@pytest.fixture
def run(session: Session, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command line against the fake service."""
    monkeypatch.setattr(_common, "open_session", lambda data_dir: session)
    monkeypatch.delenv("RIDGELINE_DEBUG", raising=False)

    def invoke(*arguments: str, input: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(app, list(arguments), input=input)
        assert "Traceback" not in result.output
        return result

    return invoke
