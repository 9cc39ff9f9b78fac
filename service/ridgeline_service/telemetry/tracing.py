"""Spans of a request by stage, for OpenTelemetry: on where the environment asks for it, else off.

The standard variables decide: ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``..._TRACES_ENDPOINT``) or
``OTEL_TRACES_EXPORTER=otlp``; ``OTEL_SDK_DISABLED=true`` and ``OTEL_TRACES_EXPORTER=none`` turn it
off. Callers hold a `Span` and know no more: without tracing that is `NO_SPAN`, whose methods do
nothing, and OpenTelemetry is never imported. Times are seconds since the epoch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

log = logging.getLogger(__name__)

Value = str | int | float | bool


class Span(Protocol):
    """A stretch of a request's time. As a context manager it ends with its block."""

    @property
    def recording(self) -> bool:
        """False when nobody will see it: what is costly to say need not be said."""

    def child(self, name: str, *, start: float | None = None) -> Span:
        """A stage of this one, which begins now unless ``start`` is given."""

    def headers(self) -> Mapping[str, str]:
        """What the next service needs to go on with this trace (W3C's traceparent)."""

    def set(self, name: str, value: Value) -> None: ...
    def fail(self, why: str) -> None: ...
    def end(self, *, at: float | None = None) -> None: ...
    def __enter__(self) -> Span: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Tracing(Protocol):
    """Where spans come from."""

    def request(self, name: str, headers: Mapping[str, str]) -> Span:
        """The span of a request that came with ``headers`` (lower-case): a new trace, or the next
        part of its sender's."""

    def close(self) -> None:
        """Send what is still to be sent."""


class _NoSpan:
    """Nobody watches."""

    recording = False

    def child(self, name: str, *, start: float | None = None) -> Span:
        return self

    def headers(self) -> Mapping[str, str]:
        return {}

    def set(self, name: str, value: Value) -> None: ...

    def fail(self, why: str) -> None: ...

    def end(self, *, at: float | None = None) -> None: ...

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *_: object) -> None: ...


NO_SPAN: Span = _NoSpan()


class _NoTracing:
    def request(self, name: str, headers: Mapping[str, str]) -> Span:
        return NO_SPAN

    def close(self) -> None: ...


NO_TRACING: Tracing = _NoTracing()


def open_tracing(environment: Mapping[str, str], service: str) -> Tracing:
    """What ``environment`` asks for; ``service`` is the name where ``OTEL_SERVICE_NAME`` is unset.

    Tracing that cannot be had is a warning in the log: no request depends on it.
    """
    exporter = _wanted_exporter(environment)
    if exporter is None:
        return NO_TRACING
    protocol = environment.get(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    )
    if exporter != "otlp" or protocol != "http/protobuf":
        log.warning(
            "No traces: exporter %r with protocol %r is not supported. "
            "Use OTEL_TRACES_EXPORTER=otlp and OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf.",
            exporter,
            protocol,
        )
        return NO_TRACING
    try:
        # Imported here: it takes a fifth of a second, and most services have no collector.
        from ridgeline_service.telemetry.otel import OpenTelemetry, to_collector
    except ImportError as error:
        log.warning("No traces: %s. pip install 'ridgeline[tracing]'", error)
        return NO_TRACING
    return OpenTelemetry(to_collector(), "" if environment.get("OTEL_SERVICE_NAME") else service)


def _wanted_exporter(environment: Mapping[str, str]) -> str | None:
    """The exporter to use, or None for no tracing."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    named = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if named:
        return None if named == "none" else named
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return "otlp" if any(environment.get(name) for name in endpoints) else None
