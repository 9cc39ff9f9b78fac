"""`Tracing` over OpenTelemetry's SDK. Imported only where the environment asks for traces.

Sampling (``OTEL_TRACES_SAMPLER``), batching (``OTEL_BSP_*``), the collector's address and headers
(``OTEL_EXPORTER_OTLP_*``), resource attributes and propagators are read by the SDK itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from opentelemetry import context, propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from ridgeline_service.telemetry.tracing import Span, Value


class OpenTelemetry:
    """Spans of one process. ``service`` empty leaves its name to ``OTEL_SERVICE_NAME``."""

    def __init__(self, processor: SpanProcessor, service: str) -> None:
        named = {SERVICE_NAME: service} if service else {}
        # Not the global provider: a process may hold several servers (in tests), each its own.
        self._provider = TracerProvider(resource=Resource.create(named))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("ridgeline")

    def request(self, name: str, headers: Mapping[str, str]) -> Span:
        parent = propagate.extract(headers)
        span = self._tracer.start_span(name, context=parent, kind=SpanKind.SERVER)
        return _Recorded(self._tracer, span)

    def close(self) -> None:
        self._provider.shutdown()


def to_collector() -> SpanProcessor:
    """Spans in batches, on a thread of their own, to the collector that the environment names."""
    return BatchSpanProcessor(OTLPSpanExporter())


class _Recorded:
    """One span of the SDK's."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context: context.Context | None = None

    @property
    def recording(self) -> bool:
        return self._span.is_recording()

    def child(self, name: str, *, start: float | None = None) -> Span:
        begun = self._tracer.start_span(name, context=self._own_context(), start_time=_ns(start))
        return _Recorded(self._tracer, begun)

    def headers(self) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        propagate.inject(carrier, context=self._own_context())
        return carrier

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def fail(self, why: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, why))

    def end(self, *, at: float | None = None) -> None:
        self._span.end(end_time=_ns(at))

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.fail(kind.__name__)
        self.end()

    def _own_context(self) -> context.Context:
        if self._context is None:
            self._context = trace.set_span_in_context(self._span, context.Context())
        return self._context


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1e9)
