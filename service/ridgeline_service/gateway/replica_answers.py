"""What replicas answer: whole or as it comes, and the errors of those that do not, or not all."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict

from ridgeline_service.errors import AwsError, ModelError
from ridgeline_service.gateway.http import wire_headers
from ridgeline_service.gateway.limits import Meter
from ridgeline_service.gateway.routing import Lease
from ridgeline_service.replica_protocol import USAGE_HEADER, USAGE_MARK, Usage
from ridgeline_service.snapshot import Snapshot

# What an invocation counts as whose replica gave no answer, or not all of it.
BROKE_OFF, TIMED_OUT = 503, 504


class ReplicaLost(AwsError):
    """The replica broke off. Before the first byte of an answer it is tried elsewhere."""

    code = "ServiceUnavailable"
    http_status = 503


class ReplicaKiller(ReplicaLost):
    """The request may be what ends replicas: a second one broke off at it, which worked on nothing
    else. Clients do not repeat this by themselves, as they do a 503."""

    code = "ModelError"
    http_status = 424


class ReplicaTimeout(AwsError):
    """The replica did not answer in time."""

    code = "ModelError"
    http_status = 424


class AnswerTooLarge(AwsError):
    """The replica's answer is longer than its caller may have it."""

    code = "ModelError"
    http_status = 424


@dataclass(frozen=True)
class Whole:
    """An answer that has arrived completely."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    lease: Lease


class Streaming:
    """An answer whose body is on its way."""

    def __init__(
        self, response: aiohttp.ClientResponse, lease: Lease, timeout_s: float, meter: Meter
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = CIMultiDict(wire_headers(response.raw_headers))
        self.lease = lease
        self.failed = 0
        """The status that a break in mid-answer counts as; 0 without one."""
        self._response = response
        self._timeout_s = timeout_s
        self._meter = meter

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Bytes as they come. Raises ReplicaLost or ReplicaTimeout."""
        if not self._meter.counts:
            async for chunk in self._received():
                yield chunk
            return
        passed = 0
        usage = b""
        whole = False
        try:
            async for chunk in self._received():
                text, mark, rest = (b"", b"", chunk) if usage else chunk.partition(USAGE_MARK)
                usage += mark + rest
                if text:
                    passed += 1
                    yield text
            whole = True
        finally:
            if whole:
                said = usage[1:] or self.headers.get(USAGE_HEADER, "")
                self._meter.settle(Usage.decoded(said))
            else:
                # About a token a chunk: the reader left, or the replica broke off.
                self._meter.broken_off(passed)

    async def _received(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await self._response.content.readany():
                yield chunk
        except TimeoutError:
            self.failed = TIMED_OUT
            raise timed_out(self.lease, self._timeout_s) from None
        except (aiohttp.ClientError, OSError) as error:
            self.failed = BROKE_OFF
            raise lost(self.lease, error) from None

    async def read(self, limit: float = math.inf) -> bytes:
        """All of the body. Raises as ``chunks`` does, and AnswerTooLarge as soon as more than
        ``limit`` bytes have come or were announced."""
        pieces = []
        size = 0
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                if max(size, self._response.content_length or 0) > limit:
                    raise AnswerTooLarge(
                        f"The model's answer has more than the {limit} bytes that this call may "
                        "return. Make it shorter, stream it, or use InvokeEndpointAsync."
                    )
                pieces.append(chunk)
        return b"".join(pieces)


def model_error(status: int, body: bytes, lease: Lease, snapshot: Snapshot) -> ModelError:
    """What a client is told when the container answered with an error."""
    text = body.decode("utf-8", "replace")
    kind = "client error" if 400 <= status < 500 else "server error"
    arn = log_stream_arn(lease, snapshot)
    return ModelError(
        f'Received {kind} ({status}) from primary with message "{text[:1024]}". '
        f"See the log stream {arn.rpartition('log-group:')[2]} for more information.",
        original_status=status,
        original_message=text[:2048],
        log_stream_arn=arn,
    )


def log_stream_arn(lease: Lease, snapshot: Snapshot) -> str:
    group = f"/aws/sagemaker/Endpoints/{lease.endpoint.name}"
    stream = f"{lease.variant.name}/{lease.replica.replica_id}"
    return (
        f"arn:aws:logs:{snapshot.region}:{snapshot.account_id}"
        f":log-group:{group}:log-stream:{stream}"
    )


def lost(lease: Lease, error: Exception) -> ReplicaLost:
    return ReplicaLost(
        f"Replica {lease.replica.replica_id} of endpoint {lease.endpoint.name} broke off: "
        f"{type(error).__name__}. Try again; its log may say why."
    )


def killed(lease: Lease) -> ReplicaKiller:
    return ReplicaKiller(
        f"Replica {lease.replica.replica_id} of endpoint {lease.endpoint.name} broke off. The "
        "request may be what ended it, and is not given to another: "
        f"`ridgeline logs {lease.endpoint.name}` has what it said before."
    )


def timed_out(lease: Lease, limit_s: float) -> ReplicaTimeout:
    return ReplicaTimeout(
        f"Invocation timed out while waiting for a response from replica "
        f"{lease.replica.replica_id} of endpoint {lease.endpoint.name}: nothing came for "
        f"{limit_s:g} s, which is the limit. Ask for a shorter answer, stream it, or use "
        "InvokeEndpointAsync with a longer InvocationTimeoutSeconds."
    )
