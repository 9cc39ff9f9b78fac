"""InvokeEndpoint and InvokeEndpointWithResponseStream."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ridgeline_service.errors import ThrottlingException, ValidationException
from ridgeline_service.gateway import event_stream
from ridgeline_service.gateway.capture import Captures
from ridgeline_service.gateway.http import Exchange
from ridgeline_service.gateway.limits import Meter
from ridgeline_service.gateway.replica_answers import ReplicaLost, ReplicaTimeout, model_error
from ridgeline_service.gateway.replicas import Call, Replicas
from ridgeline_service.gateway.routing import Lease
from ridgeline_service.replica_protocol import SIMULATED_HEADER
from ridgeline_service.snapshot import Snapshot

# AWS's limit for real-time invocations, both ways.
MAX_BODY = 25 * 1024 * 1024

_PREFIX = "x-amzn-sagemaker-"
# What would choose another model than the endpoint's variants, or another kind of answer.
_REFUSED = {
    _PREFIX + "target-model": ("TargetModel", "it is not a multi-model endpoint"),
    _PREFIX + "target-container-hostname": (
        "TargetContainerHostname",
        "it is not a multi-container endpoint",
    ),
    _PREFIX + "inference-component": (
        "InferenceComponentName",
        "it has no inference components",
    ),
    _PREFIX + "enable-explanations": ("EnableExplanations", "nothing is explained here"),
}
_LONGEST = {
    _PREFIX + "custom-attributes": ("CustomAttributes", 1024),
    _PREFIX + "inference-id": ("InferenceId", 64),
}
_NOT_FORWARDED = frozenset((_PREFIX + "target-variant", _PREFIX + "accept"))
_ANSWERED = frozenset(
    _PREFIX + name for name in ("custom-attributes", "new-session-id", "closed-session-id")
) | {SIMULATED_HEADER}
VARIANT_HEADER = "x-Amzn-Invoked-Production-Variant"


def check_headers(headers: Mapping[str, str], endpoint: str) -> None:
    """Raises ValidationException for what would have to change the answer, and does not here."""
    for header, (member, why) in _REFUSED.items():
        if headers.get(header):
            raise ValidationException(
                f"Endpoint {endpoint} cannot take {member} {headers[header]}: {why}. "
                "Leave it out; TargetVariant chooses one of its variants.",
                code="ValidationError",
            )
    for header, (member, most) in _LONGEST.items():
        length = len(headers.get(header, ""))
        if length > most:
            raise ValidationException(
                f"{member} has {length} characters, more than {most}.", code="ValidationError"
            )


def replica_headers(
    headers: Mapping[str, str], *, accept: str, content_type: str
) -> dict[str, str]:
    """What of a client's headers a container sees."""
    seen = {
        name: value
        for name, value in headers.items()
        if name.startswith(_PREFIX) and name not in _NOT_FORWARDED
    }
    seen["Content-Type"] = content_type or "application/octet-stream"
    if accept:
        seen["Accept"] = accept
    return seen


def refused(status: int, headers: Mapping[str, str], body: bytes) -> ThrottlingException | None:
    """A replica's own 429 (its queue is full) is not an error of the model."""
    if status != 429:
        return None
    after = headers.get("Retry-After", "1")
    return ThrottlingException(
        f"The model server is full: {body.decode('utf-8', 'replace')[:512]}",
        retry_after_s=float(after) if after.isdigit() else 1.0,
    )


async def invoke(
    exchange: Exchange,
    endpoint: str,
    body: bytes,
    replicas: Replicas,
    snapshot: Callable[[], Snapshot],
    meter: Meter,
    captures: Captures,
) -> None:
    """``POST /endpoints/NAME/invocations``. Raises AwsError."""
    headers = exchange.headers
    check_headers(headers, endpoint)
    call = Call(
        endpoint,
        "/invocations",
        body,
        replica_headers(
            headers,
            accept=headers.get("accept", ""),
            content_type=headers.get("content-type", ""),
        ),
        target=headers.get(_PREFIX + "target-variant", ""),
        meter=meter,
        span=exchange.span,
    )
    answer = await replicas.fetch(call, MAX_BODY)
    if not 200 <= answer.status < 300:
        raise refused(answer.status, answer.headers, answer.body) or model_error(
            answer.status, answer.body, answer.lease, snapshot()
        )
    await exchange.respond(
        200,
        [
            *_answer_headers(answer.headers, answer.lease),
            ("content-type", answer.headers.get("Content-Type", "application/octet-stream")),
        ],
        answer.body,
    )
    capture = answer.lease.variant.capture
    if capture is not None and captures.wanted(capture):
        captures.record(capture, answer.lease, headers, body, answer.headers, answer.body)


async def invoke_stream(
    exchange: Exchange,
    endpoint: str,
    body: bytes,
    replicas: Replicas,
    snapshot: Callable[[], Snapshot],
    meter: Meter,
) -> None:
    """``POST /endpoints/NAME/invocations-response-stream``. Raises AwsError before the first byte;
    what fails later goes out as an exception event."""
    headers = exchange.headers
    check_headers(headers, endpoint)
    call = Call(
        endpoint,
        "/invocations",
        body,
        replica_headers(
            headers,
            accept=headers.get(_PREFIX + "accept", ""),
            content_type=headers.get("content-type", ""),
        ),
        target=headers.get(_PREFIX + "target-variant", ""),
        meter=meter,
        span=exchange.span,
    )
    async with replicas.open(call) as answer:
        if not 200 <= answer.status < 300:
            text = await answer.read(MAX_BODY)
            raise refused(answer.status, answer.headers, text) or model_error(
                answer.status, text, answer.lease, snapshot()
            )
        content_type = answer.headers.get("Content-Type", "application/octet-stream")
        await exchange.start(
            200,
            [
                *_answer_headers(answer.headers, answer.lease),
                ("content-type", event_stream.CONTENT_TYPE),
                ("X-Amzn-SageMaker-Content-Type", content_type),
            ],
        )
        parts = event_stream.PayloadParts(content_type)
        last = b""
        try:
            async for chunk in answer.chunks():
                if framed := parts.take(chunk):
                    await exchange.write(framed)
        except ReplicaLost as error:
            last = event_stream.exception(
                "ModelStreamError", Message=error.message, ErrorCode="StreamBroken"
            )
        except ReplicaTimeout as error:
            last = event_stream.exception(
                "ModelStreamError", Message=error.message, ErrorCode="ModelInvocationTimeExceeded"
            )
        await exchange.end(parts.rest() + last)


def _answer_headers(headers: Mapping[str, str], lease: Lease) -> list[tuple[str, str]]:
    answered = [(name, value) for name, value in headers.items() if name.lower() in _ANSWERED]
    return [*answered, (VARIANT_HEADER, lease.variant.name)]
