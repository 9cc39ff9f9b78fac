"""The three protocols of the AWS services that we answer: JSON 1.x, query (form in, XML out) and
smithy RPC v2 CBOR. Each reads a body into plain values and writes responses and errors; checking
the values is ``validation``'s, their meaning the operations'.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl
from xml.etree.ElementTree import Element, SubElement, tostring

from botocore.model import ListShape, MapShape, OperationModel, Shape, ShapeResolver, StructureShape
from botocore.parsers import ResponseParserError, RpcV2CBORParser

from ridgeline_service.api.output import JsonOutput, to_cbor, to_xml, xml_safe
from ridgeline_service.api.shapes import Service, wire_name
from ridgeline_service.api.validation import SerializationException

_MAX_FORM_FIELDS = 20_000
_MAX_FORM_DEPTH = 16

_FAULT_SHAPE = ShapeResolver(
    {
        "Fault": {
            "type": "structure",
            "members": {"__type": {"shape": "Text"}, "message": {"shape": "Text"}},
        },
        "Text": {"type": "string"},
    }
).get_shape_by_name("Fault")


@dataclass(frozen=True)
class Reply:
    """An HTTP answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Fault:
    """An error as every protocol can write it."""

    code: str
    message: str
    status: int


class Wire(Protocol):
    """One protocol of one service."""

    def read(self, operation: OperationModel, body: bytes) -> object:
        """Plain values, not yet checked. Raises SerializationException for an unreadable body."""
        ...

    def write(
        self, operation: OperationModel, output: Mapping[str, object], request_id: str
    ) -> Reply: ...

    def fault(self, fault: Fault, request_id: str) -> Reply: ...


class JsonWire:
    """AWS JSON 1.0 and 1.1."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._output = JsonOutput()

    @property
    def _content_type(self) -> str:
        return f"application/x-amz-json-{self._service.json_version}"

    def read(self, operation: OperationModel, body: bytes) -> object:
        if not body.strip():
            return {}
        try:
            value: object = _DECODER.decode(body.decode())
            return value
        except RecursionError:
            raise SerializationException("The body is nested too deeply.") from None
        except ValueError as error:
            raise SerializationException(f"The body is not valid JSON: {_brief(error)}") from None

    def write(
        self, operation: OperationModel, output: Mapping[str, object], request_id: str
    ) -> Reply:
        # DeleteModel and its like have no output shape: AWS answers them with an empty body.
        shape = operation.output_shape
        body = b"" if shape is None else json.dumps(self._output.convert(shape, output)).encode()
        return Reply(200, self._headers(request_id), body)

    def fault(self, fault: Fault, request_id: str) -> Reply:
        headers = self._headers(request_id)
        headers["x-amzn-errortype"] = fault.code
        headers.update(_query_error(self._service, fault))
        body = json.dumps({"__type": fault.code, "message": fault.message})
        return Reply(fault.status, headers, body.encode())

    def _headers(self, request_id: str) -> dict[str, str]:
        return {"content-type": self._content_type, "x-amzn-requestid": request_id}


class QueryWire:
    """The query protocol: a form (or a query string) in, XML out."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def read(self, operation: OperationModel, body: bytes) -> object:
        tree: dict[str, object] = {}
        for key, value in read_form(body):
            if key in ("Action", "Version") or key.startswith("X-Amz-"):
                continue
            parts = key.split(".")
            if len(parts) > _MAX_FORM_DEPTH:
                raise SerializationException(f"The parameter {key[:80]!r} is nested too deeply.")
            _insert(tree, parts, value)
        shape = operation.input_shape
        return tree if shape is None else _typed(shape, tree)

    def write(
        self, operation: OperationModel, output: Mapping[str, object], request_id: str
    ) -> Reply:
        root = Element(f"{operation.name}Response", xmlns=self._service.xml_namespace)
        shape = operation.output_shape
        if shape is not None:
            to_xml(root, shape, output, str(shape.serialization["resultWrapper"]))
        SubElement(SubElement(root, "ResponseMetadata"), "RequestId").text = request_id
        return Reply(200, self._headers(request_id), tostring(root))

    def fault(self, fault: Fault, request_id: str) -> Reply:
        root = Element("ErrorResponse", xmlns=self._service.xml_namespace)
        error = SubElement(root, "Error")
        SubElement(error, "Type").text = _sender(fault)
        SubElement(error, "Code").text = xml_safe(self._service.query_code(fault.code))
        SubElement(error, "Message").text = xml_safe(fault.message)
        SubElement(root, "RequestId").text = request_id
        return Reply(fault.status, self._headers(request_id), tostring(root))

    def _headers(self, request_id: str) -> dict[str, str]:
        return {"content-type": "text/xml", "x-amzn-requestid": request_id}


class CborWire:
    """Smithy RPC v2 with CBOR bodies, by botocore's own decoder and encoder."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def read(self, operation: OperationModel, body: bytes) -> object:
        if not body:
            return {}
        parser = RpcV2CBORParser()
        stream = parser.get_peekable_stream_from_bytes(body)
        try:
            value: object = parser.parse_data_item(stream)
            rest = stream.read(1)
        except RecursionError:
            raise SerializationException("The body is nested too deeply.") from None
        except (
            ResponseParserError,
            ValueError,
            TypeError,
            AttributeError,
            LookupError,
            ArithmeticError,
            MemoryError,
            OSError,
            RuntimeError,
        ) as error:
            # botocore's decoder trusts its input; every way in which a hostile one breaks it
            # means the same to the sender.
            raise SerializationException(f"The body is not valid CBOR: {_brief(error)}") from None
        if rest:
            raise SerializationException("The body is not valid CBOR: bytes follow the value")
        return value

    def write(
        self, operation: OperationModel, output: Mapping[str, object], request_id: str
    ) -> Reply:
        return Reply(200, self._headers(request_id), to_cbor(operation.output_shape, output))

    def fault(self, fault: Fault, request_id: str) -> Reply:
        headers = self._headers(request_id)
        headers.update(_query_error(self._service, fault))
        body = to_cbor(_FAULT_SHAPE, {"__type": fault.code, "message": fault.message})
        return Reply(fault.status, headers, body)

    def _headers(self, request_id: str) -> dict[str, str]:
        return {
            "content-type": "application/cbor",
            "smithy-protocol": "rpc-v2-cbor",
            "x-amzn-requestid": request_id,
        }


def read_form(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form. Raises SerializationException if it is none."""
    try:
        return parse_qsl(
            body.decode("utf-8"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_FORM_FIELDS,
        )
    except ValueError as error:
        raise SerializationException(f"The body is not a form: {_brief(error)}") from None


def _insert(tree: dict[str, object], parts: list[str], value: str) -> None:
    node = tree
    for part in parts[:-1]:
        inner = node.setdefault(part, {})
        if not isinstance(inner, dict):
            raise SerializationException(f"The parameter {'.'.join(parts)[:80]!r} is ambiguous.")
        node = inner
    if parts[-1] in node:
        raise SerializationException(f"The parameter {'.'.join(parts)[:80]!r} is given twice.")
    node[parts[-1]] = value


def _typed(shape: Shape, node: object) -> object:
    """A tree of form fields as the values that JSON would have held. What does not fit stays as it
    is, and the validator names it."""
    if isinstance(shape, StructureShape):
        if not isinstance(node, dict):
            return node
        members = {wire_name(member, name): member for name, member in shape.members.items()}
        return {
            key: _typed(members[key], value) if key in members else value
            for key, value in node.items()
        }
    if isinstance(shape, ListShape):
        items = _numbered(node, wire_name(shape.member, "member"))
        return node if items is None else [_typed(shape.member, item) for item in items]
    if isinstance(shape, MapShape):
        entries = _numbered(node, "entry")
        if entries is None or not all(isinstance(e, dict) and "key" in e for e in entries):
            return node
        return {
            str(entry["key"]): _typed(shape.value, entry.get("value"))
            for entry in entries
            if isinstance(entry, dict)
        }
    return _scalar(shape, node)


def _numbered(node: object, name: str) -> list[object] | None:
    if node == "":
        return []
    inner = node.get(name) if isinstance(node, dict) and len(node) == 1 else None
    if not isinstance(inner, dict):
        return None
    if not all(key.isascii() and key.isdigit() and len(key) < 9 for key in inner):
        return None
    return [inner[key] for key in sorted(inner, key=int)]


def _scalar(shape: Shape, node: object) -> object:
    if not isinstance(node, str) or not node.isascii() or len(node) > 40:
        return node
    match shape.type_name:
        case "integer" | "long" if node.lstrip("-").isdigit() and node.count("-") < 2:
            return int(node)
        case "float" | "double":
            try:
                return float(node)
            except ValueError:
                return node
        case "boolean" if node in ("true", "false"):
            return node == "true"
        case _:
            return node


def _query_error(service: Service, fault: Fault) -> dict[str, str]:
    if not service.is_query_compatible:
        return {}
    return {"x-amzn-query-error": f"{service.query_code(fault.code)};{_sender(fault)}"}


def _sender(fault: Fault) -> str:
    return "Sender" if fault.status < 500 else "Receiver"


def _not_json(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(parse_constant=_not_json)


def _brief(error: BaseException) -> str:
    return str(error)[:200] or type(error).__name__
