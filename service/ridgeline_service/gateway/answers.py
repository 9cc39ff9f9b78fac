"""Errors as each protocol writes them, for what the gateway answers itself.

AWS clients match on the code: in ``__type`` or ``x-amzn-errortype`` for JSON, in XML for the query
protocol and S3, in a CBOR map for Smithy's RPC. OpenAI's clients match on the status.
"""

from __future__ import annotations

import json
from enum import Enum
from xml.sax.saxutils import escape

from ridgeline.errors import RidgelineError
from ridgeline_service.errors import ModelError, ThrottlingException

_UNAVAILABLE_S = 2


class Protocol(Enum):
    JSON = "json"
    QUERY = "query"
    CBOR = "cbor"
    REST_JSON = "rest-json"
    REST_XML = "rest-xml"
    OPENAI = "openai"
    API = "api"


Answer = tuple[int, list[tuple[str, str]], bytes]


def error_answer(error: RidgelineError, protocol: Protocol, request_id: str) -> Answer:
    """Status, headers and body that say ``error`` to a client of ``protocol``."""
    status = error.http_status
    headers = retry_after(error)
    match protocol:
        case Protocol.JSON:
            body = json.dumps({"__type": error.code, "message": str(error)}).encode()
            headers += [
                ("content-type", "application/x-amz-json-1.1"),
                ("x-amzn-errortype", error.code),
            ]
        case Protocol.REST_JSON:
            body = json.dumps(_runtime_body(error)).encode()
            headers += [("content-type", "application/json"), ("x-amzn-errortype", error.code)]
        case Protocol.CBOR:
            body = _cbor({"__type": error.code, "message": str(error)})
            headers += [("content-type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")]
        case Protocol.QUERY:
            fault = "Sender" if status < 500 else "Receiver"
            body = (
                f"<ErrorResponse><Error><Type>{fault}</Type><Code>{escape(error.code)}</Code>"
                f"<Message>{escape(str(error))}</Message></Error>"
                f"<RequestId>{request_id}</RequestId></ErrorResponse>"
            ).encode()
            headers.append(("content-type", "text/xml"))
        case Protocol.REST_XML:
            body = (
                f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{escape(error.code)}</Code>'
                f"<Message>{escape(str(error))}</Message>"
                f"<RequestId>{request_id}</RequestId></Error>"
            ).encode()
            headers.append(("content-type", "application/xml"))
        case Protocol.OPENAI:
            body = openai_error(str(error), openai_type(status), code=error.code)
            headers.append(("content-type", "application/json"))
        case Protocol.API:
            fields = {"code": error.code, "message": error.message, "hint": error.hint}
            body = json.dumps({"error": fields}).encode()
            headers.append(("content-type", "application/json"))
    return status, headers, body


def retry_after(error: RidgelineError) -> list[tuple[str, str]]:
    """When to come back, for what may pass: a full queue, and whatever restarts by itself."""
    if isinstance(error, ThrottlingException):
        return [("retry-after", str(max(1, round(error.retry_after_s))))]
    if error.http_status == 503:
        return [("retry-after", str(_UNAVAILABLE_S))]
    return []


def openai_error(message: str, kind: str, *, param: str = "", code: str = "") -> bytes:
    """OpenAI's error document."""
    fields = {"message": message, "type": kind, "param": param or None, "code": code or None}
    return json.dumps({"error": fields}).encode()


def openai_type(status: int) -> str:
    """The ``type`` that OpenAI sends with a status."""
    known = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return known.get(status, "invalid_request_error" if status < 500 else "server_error")


def _runtime_body(error: RidgelineError) -> dict[str, object]:
    if isinstance(error, ModelError):
        return {
            "ErrorCode": "CLIENT_ERROR_FROM_MODEL"
            if error.original_status < 500
            else "INTERNAL_FAILURE_FROM_MODEL",
            "LogStreamArn": error.log_stream_arn,
            "Message": error.message,
            "OriginalMessage": error.original_message,
            "OriginalStatusCode": error.original_status,
        }
    return {"Code": error.code, "Message": str(error)}


def _cbor(fields: dict[str, str]) -> bytes:
    """A map of text to text, RFC 8949: major types 5 and 3."""
    items = b"".join(_cbor_text(text) for pair in fields.items() for text in pair)
    return bytes([0xA0 | len(fields)]) + items


def _cbor_text(text: str) -> bytes:
    raw = text.encode()
    if len(raw) < 24:
        return bytes([0x60 | len(raw)]) + raw
    return b"\x7a" + len(raw).to_bytes(4, "big") + raw
