"""Which service a request is for: one port serves them all.

The scope of the signature decides what the path cannot: a bucket may be called ``api``, and the
runtime signs with the same service name as the control plane. What no S3 client can mean goes to
the service that it names, whatever was signed, so that the refusal is one that its client can read.
Pure functions of the request's head.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

from ridgeline_service.gateway.answers import Protocol
from ridgeline_service.gateway.http import Exchange
from ridgeline_service.security.sigv2 import is_sigv2


class Room(Enum):
    """Where a request is answered."""

    HEALTH = "health"
    METRICS = "metrics"
    OPENAI = "openai"
    API = "api"
    CONTROL = "control"
    RUNTIME = "runtime"
    S3 = "s3"


@dataclass(frozen=True)
class Destination:
    """``operation`` names the call where the head tells it; ``endpoint`` is set for the runtime."""

    room: Room
    protocol: Protocol
    operation: str = ""
    endpoint: str = ""


_CREDENTIAL = re.compile(r"Credential=[^,\s]*/(?P<service>[a-z0-9-]+)/aws4_request")
_CBOR = re.compile(r"/service/[^/]+/operation/(?P<operation>[^/]+)")
_RUNTIME = re.compile(
    r"/endpoints/(?P<endpoint>[^/]+)/"
    r"(?P<operation>invocations|invocations-response-stream|async-invocations)"
)
_S3_HOST = re.compile(r"(?:.+\.)?s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?")
_REST_CONTROL = ("/FeatureGroup/", "/BatchPutMetrics")
# vLLM has these beside /v1, and clients for vLLM ask for them there.
_VLLM = {
    "/detokenize": "detokenize",
    "/rerank": "rerank",
    "/score": "score",
    "/tokenize": "tokenize",
    "/v2/rerank": "rerank",
}
_HEALTH = Destination(Room.HEALTH, Protocol.API)
_S3 = Destination(Room.S3, Protocol.REST_XML)


def destination(exchange: Exchange) -> Destination:
    headers, path = exchange.headers, exchange.path
    service = signed_service(exchange)
    if _S3_HOST.fullmatch(exchange.host.partition(":")[0]):
        return _S3
    if service == "s3" and not _names_another_service(exchange):
        return _S3
    if path == "/healthz":
        return _HEALTH
    target = headers.get("x-amz-target", "")
    if target:
        return Destination(Room.CONTROL, Protocol.JSON, target.rpartition(".")[2])
    runtime = _RUNTIME.fullmatch(path)
    if runtime:
        return Destination(
            Room.RUNTIME, Protocol.REST_JSON, runtime["operation"], runtime["endpoint"]
        )
    if path.startswith("/v1/"):
        return Destination(Room.OPENAI, Protocol.OPENAI, path.removeprefix("/v1/"))
    if path == "/api" or path.startswith("/api/"):
        return Destination(Room.API, Protocol.API)
    if path in ("/metrics", "/metrics/targets") or path.startswith("/metrics/replicas/"):
        return Destination(Room.METRICS, Protocol.API)
    cbor = _CBOR.fullmatch(path)
    if cbor:
        return Destination(Room.CONTROL, Protocol.CBOR, cbor["operation"])
    if path.startswith(_REST_CONTROL):
        return Destination(Room.CONTROL, Protocol.REST_JSON)
    if headers.get("authorization", "").lower().startswith("bearer "):
        # A client of OpenAI's API: no S3 client sends that. Its base URL may lack the /v1.
        return Destination(Room.OPENAI, Protocol.OPENAI, _VLLM.get(path, ""))
    if service or (path == "/" and _is_form(exchange)):
        return Destination(Room.CONTROL, Protocol.QUERY)
    return _S3


def _names_another_service(exchange: Exchange) -> bool:
    """S3's POSTs all have a query; one without is a form of a browser, which signs no header."""
    if exchange.method != "POST" or exchange.query:
        return False
    path = exchange.path
    return bool(
        exchange.headers.get("x-amz-target")
        or (path == "/" and _is_form(exchange))
        or _RUNTIME.fullmatch(path)
        or _CBOR.fullmatch(path)
    )


def _is_form(exchange: Exchange) -> bool:
    kind = exchange.headers.get("content-type", "")
    return kind.startswith("application/x-www-form-urlencoded")


def signed_service(exchange: Exchange) -> str:
    """The service that the signature claims to be for; empty without one. Nothing is verified."""
    if is_sigv2(exchange.query):
        return "s3"
    found = _CREDENTIAL.search(exchange.headers.get("authorization", ""))
    if not found and b"X-Amz-Credential=" in exchange.query:
        found = _CREDENTIAL.search(unquote(exchange.query.decode("latin-1")).replace("X-Amz-", ""))
    return found["service"] if found else ""
