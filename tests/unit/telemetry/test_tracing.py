"""Spans: off by default, W3C's context in and out, and to a collector over OTLP/HTTP."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from ridgeline_service.telemetry.otel import OpenTelemetry
from ridgeline_service.telemetry.tracing import NO_SPAN, NO_TRACING, open_tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Iterator[OpenTelemetry]:
    made = OpenTelemetry(SimpleSpanProcessor(exporter), "replica")
    yield made
    made.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"},
    ],
)
def test_nothing_is_traced_unless_it_is_asked_for(environment: dict[str, str]) -> None:
    assert open_tracing(environment, "gateway") is NO_TRACING


def test_without_tracing_the_sdk_is_never_imported() -> None:
    program = (
        "import sys, ridgeline_service.gateway.build, ridgeline_service.serving.llm.server\n"
        "from ridgeline_service.telemetry.tracing import open_tracing\n"
        "open_tracing({}, 'gateway')\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_an_exporter_that_is_not_there_is_a_warning(
    environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert open_tracing(environment, "gateway") is NO_TRACING
    assert "OTEL_TRACES_EXPORTER=otlp" in caplog.text


def test_the_null_span_is_its_own_child() -> None:
    with NO_SPAN.child("auth") as stage:
        stage.set("a", 1)
        stage.fail("no")
    assert stage is NO_SPAN
    assert not stage.recording
    assert stage.headers() == {}


def test_a_trace_goes_on_through_headers(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    with tracing.request("chat", {"traceparent": TRACEPARENT}) as span:
        stage = span.child("queue", start=1_700_000_000.0)
        passed = stage.headers()["traceparent"]
        stage.set("ridgeline.endpoint", "smol")
        stage.end(at=1_700_000_001.5)
    queue, request = exporter.get_finished_spans()
    assert request.context is not None
    assert queue.context is not None
    assert format(request.context.trace_id, "032x") == TRACE
    assert request.parent is not None
    assert format(request.parent.span_id, "016x") == PARENT
    assert queue.parent is not None
    assert queue.parent.span_id == request.context.span_id
    assert passed == f"00-{TRACE}-{queue.context.span_id:016x}-01"
    assert queue.start_time is not None
    assert queue.end_time is not None
    assert (queue.start_time, queue.end_time - queue.start_time) == (
        1_700_000_000 * 10**9,
        15 * 10**8,
    )
    assert queue.attributes == {"ridgeline.endpoint": "smol"}
    assert request.resource.attributes["service.name"] == "replica"


def test_a_trace_that_its_sender_does_not_sample_is_not_recorded(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    with tracing.request("chat", {"traceparent": TRACEPARENT[:-1] + "0"}) as span:
        assert not span.recording
        assert span.headers()["traceparent"].endswith("-00")
    assert exporter.get_finished_spans() == ()


def test_a_failure_is_the_status_of_its_span(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    with pytest.raises(ValueError, match="no"), tracing.request("chat", {}):
        raise ValueError("no")
    [span] = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "ValueError"


def test_spans_reach_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        tracing = open_tracing(environment, "ridgeline-gateway")
        with tracing.request("chat", {}) as span:
            span.child("auth").end()
        tracing.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    [(path, body)] = received
    assert path == "/v1/traces"
    [resource] = ExportTraceServiceRequest.FromString(body).resource_spans
    names = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert names["service.name"] == "ridgeline-gateway"
    assert {span.name for scope in resource.scope_spans for span in scope.spans} == {"chat", "auth"}
