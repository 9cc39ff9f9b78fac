"""A request's stages in the gateway, and its trace going on in the replica."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from threading import Condition

import pytest
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ridgeline_service.telemetry.otel import OpenTelemetry

from .conftest import BEARER, World, route

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Spans(InMemorySpanExporter):
    """What was recorded, by name."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = Condition()
        self.tracing = OpenTelemetry(SimpleSpanProcessor(self), "gateway")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._changed:
            result = super().export(spans)
            self._changed.notify_all()
        return result

    def wait(self, name: str) -> dict[str, ReadableSpan]:
        """Until the span ``name``, the last one, is there: its answer may be there before it."""

        def found() -> dict[str, ReadableSpan]:
            return {span.name: span for span in self.get_finished_spans()}

        with self._changed:
            assert self._changed.wait_for(lambda: name in found(), timeout=10), found()
            return found()


@pytest.fixture
def spans(world: World) -> Iterator[Spans]:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"id": "c"})

    world.publish(route("smol", world.replica(answer), task="text-generation"))
    made = Spans()
    world.start_gateway(tracing=made.tracing)
    yield made
    made.tracing.close()


def chat(world: World, model: str = "smol", **headers: str) -> int:
    body = json.dumps({"model": model, "messages": []}).encode()
    request = urllib.request.Request(
        f"{world.url}/v1/chat/completions",
        body,
        {"Authorization": f"Bearer {BEARER}", **headers},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def parent(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def test_stages_of_a_request_and_the_replicas_part(world: World, spans: Spans) -> None:
    assert chat(world, traceparent=f"00-{TRACE}-b7ad6b7169203331-01") == 200
    found = spans.wait("POST chat/completions")
    request = found["POST chat/completions"]
    assert request.context is not None
    assert format(request.context.trace_id, "032x") == TRACE
    assert parent(request) == 0xB7AD6B7169203331
    for stage in ("auth", "route", "wait", "upstream"):
        assert parent(found[stage]) == request.context.span_id
    upstream = found["upstream"]
    assert upstream.context is not None
    [seen] = world.replicas[0].seen
    assert seen.headers["traceparent"] == f"00-{TRACE}-{upstream.context.span_id:016x}-01"
    assert dict(upstream.attributes or {})["ridgeline.replica"] == "r0"
    said = dict(request.attributes or {})
    assert (said["ridgeline.endpoint"], said["http.response.status_code"]) == ("smol", 200)


def test_an_invocation(world: World, spans: Spans) -> None:
    world.client("sagemaker-runtime").invoke_endpoint(EndpointName="smol", Body=b"{}")
    found = spans.wait("POST invocations")
    assert set(found) == {"auth", "route", "wait", "upstream", "POST invocations"}


def test_a_request_that_is_refused(world: World, spans: Spans) -> None:
    assert chat(world, model="nobody") == 404
    found = spans.wait("POST chat/completions")
    assert not found["route"].status.is_ok
    assert set(found) == {"auth", "route", "POST chat/completions"}
    assert dict(found["POST chat/completions"].attributes or {})["http.response.status_code"] == 404


def test_what_is_no_inference_is_not_traced(world: World, spans: Spans) -> None:
    world.client("sagemaker").list_endpoints()
    assert spans.get_finished_spans() == ()
