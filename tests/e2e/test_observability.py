"""One request through a real service: its trace at a collector, its metrics, its key's limits."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import openai
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from ridgeline_testing import Service, running_service, until

pytestmark = pytest.mark.e2e


@dataclass
class Collector:
    """An OTLP/HTTP receiver. ``spans`` are (service, span) as they came."""

    server: ThreadingHTTPServer
    spans: list[tuple[str, Any]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            with self.lock:
                for scope in resource.scope_spans:
                    self.spans += [(names["service.name"], span) for span in scope.spans]

    def named(self, name: str) -> list[tuple[str, Any]]:
        with self.lock:
            return [(service, span) for service, span in self.spans if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    made = Collector(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    thread = Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def traced(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    port = collector.server.server_port
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with running_service(tmp_path / "data") as service:
        service.deploy("traced")
        yield service


def get(service: Service, path: str) -> bytes:
    headers = {"Authorization": f"Bearer {service.api_key}"}
    url = path if path.startswith("http") else service.url + path
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        assert isinstance(answer.status, int)
        return bytes(answer.read())


def test_a_request_is_seen_by_stage_counted_and_limited(
    traced: Service, collector: Collector
) -> None:
    chat: Any = {"model": "traced", "messages": [{"role": "user", "content": "Hi"}]}
    with openai.OpenAI(base_url=f"{traced.url}/v1", api_key=traced.api_key) as client:
        parts = list(client.chat.completions.create(**chat, max_tokens=8, stream=True))
    assert parts

    replicas_part = "POST /v1/chat/completions"
    gateways_part = "POST chat/completions"
    until(lambda: bool(collector.named(replicas_part) and collector.named(gateways_part)), 30)
    [(gateway, root)] = collector.named(gateways_part)
    [(replica, inner)] = collector.named(replicas_part)
    [(_, upstream)] = collector.named("upstream")
    assert (gateway, replica) == ("ridgeline-gateway", "ridgeline-replica")
    assert root.trace_id == inner.trace_id == upstream.trace_id
    assert (upstream.parent_span_id, inner.parent_span_id) == (root.span_id, upstream.span_id)
    for stage in ("auth", "route", "wait"):
        [(_, span)] = collector.named(stage)
        assert span.parent_span_id == root.span_id
    times = []
    for stage in ("queue", "prefill", "decode"):
        [(_, span)] = collector.named(stage)
        assert span.parent_span_id == inner.span_id
        times += [span.start_time_unix_nano, span.end_time_unix_nano]
    assert times == sorted(times)
    assert abs(times[0] / 1e9 - time.time()) < 60

    [target] = json.loads(get(traced, "/metrics/targets"))
    assert target["labels"]["endpoint"] == "traced"
    scraped = get(traced, "http://" + target["targets"][0] + target["labels"]["__metrics_path__"])
    lines = scraped.decode().splitlines()
    [count] = [line for line in lines if line.startswith("vllm:time_to_first_token_seconds_count")]
    assert count.endswith(" 1.0")
    assert any(line.startswith("ridgeline_step_seconds_count") for line in lines)
    assert 'endpoint="traced"' in get(traced, "/metrics").decode()

    made = traced.cli("keys", "create", "ci", "--requests-per-minute", "1", "--json")
    key = json.loads(made.stdout)["api_key"]
    with openai.OpenAI(base_url=f"{traced.url}/v1", api_key=key, max_retries=0) as limited:
        until(lambda: knows(limited), 10)
        first = limited.chat.completions.with_raw_response.create(**chat, max_tokens=2)
        assert first.headers["x-ratelimit-limit-requests"] == "1"
        with pytest.raises(openai.RateLimitError, match="requests per minute"):
            limited.chat.completions.create(**chat, max_tokens=2)


def knows(client: openai.OpenAI) -> bool:
    try:
        return bool(client.models.list().data)
    except openai.AuthenticationError:
        return False
