"""Output values made ready for the wire, compiled from botocore shapes: one walk that keeps known
members, drops nulls, and turns timestamps and bytes into what the protocol writes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeAlias
from xml.etree.ElementTree import Element, SubElement

from botocore.model import ListShape, MapShape, Shape, StructureShape
from botocore.serialize import RpcV2CBORSerializer

from ridgeline_service.api.shapes import wire_name

Convert: TypeAlias = Callable[[object], object]

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class JsonOutput:
    """Turns responses of one service into JSON-able values: timestamps as epoch seconds."""

    def __init__(self) -> None:
        self._compiled: dict[str, Convert] = {}

    def convert(self, shape: StructureShape | None, value: Mapping[str, object]) -> object:
        return {} if shape is None else self._compile(shape)(value)

    def _compile(self, shape: Shape) -> Convert:
        known = self._compiled.get(shape.name)
        if known is not None:
            return known
        self._compiled[shape.name] = lambda value: self._compiled[shape.name](value)
        match shape.type_name:
            case "structure":
                compiled = self._structure(shape)
            case "list":
                compiled = self._list(shape)
            case "map":
                compiled = self._map(shape)
            case "timestamp":
                compiled = epoch_seconds
            case "blob":
                compiled = _base64
            case _:
                compiled = _same
        self._compiled[shape.name] = compiled
        return compiled

    def _structure(self, shape: StructureShape) -> Convert:
        members = {
            name: (wire_name(member, name), self._compile(member))
            for name, member in shape.members.items()
        }

        def convert(value: object) -> object:
            assert isinstance(value, Mapping)
            out: dict[str, object] = {}
            for name, item in value.items():
                member = members.get(name)
                if member is not None and item is not None:
                    out[member[0]] = item if member[1] is _same else member[1](item)
            return out

        return convert

    def _list(self, shape: ListShape) -> Convert:
        member = self._compile(shape.member)
        return _listed if member is _same else lambda value: [member(i) for i in _listed(value)]

    def _map(self, shape: MapShape) -> Convert:
        member = self._compile(shape.value)

        def convert(value: object) -> object:
            assert isinstance(value, Mapping)
            return {str(key): member(item) for key, item in value.items() if item is not None}

        return convert


def to_cbor(shape: StructureShape | None, value: Mapping[str, object]) -> bytes:
    """A response as CBOR, by botocore's own encoder."""
    body = bytearray()
    if shape is None:
        return b"\xa0"
    RpcV2CBORSerializer()._serialize_data_item(body, _pruned(shape, value), shape)
    return bytes(body)


def to_xml(parent: Element, shape: Shape, value: object, name: str) -> None:
    """Append ``value`` to ``parent`` as the query protocol writes it."""
    if isinstance(shape, StructureShape):
        assert isinstance(value, Mapping)
        node = SubElement(parent, name)
        for key, member in shape.members.items():
            if value.get(key) is not None:
                to_xml(node, member, value[key], wire_name(member, key))
    elif isinstance(shape, ListShape):
        node = SubElement(parent, name)
        for item in _listed(value):
            to_xml(node, shape.member, item, wire_name(shape.member, "member"))
    elif isinstance(shape, MapShape):
        assert isinstance(value, Mapping)
        node = SubElement(parent, name)
        for key, item in value.items():
            entry = SubElement(node, "entry")
            to_xml(entry, shape.key, key, wire_name(shape.key, "key"))
            to_xml(entry, shape.value, item, wire_name(shape.value, "value"))
    else:
        SubElement(parent, name).text = _xml_text(shape, value)


def epoch_seconds(value: object) -> object:
    """Seconds since the epoch, to the millisecond, of an aware datetime (or of a number)."""
    return round(value.timestamp(), 3) if isinstance(value, datetime) else value


def _pruned(shape: Shape, value: object) -> object:
    """Known members alone: botocore's encoder takes an unknown one for a bug of its caller."""
    if isinstance(shape, StructureShape):
        assert isinstance(value, Mapping)
        return {
            name: _pruned(shape.members[name], item)
            for name, item in value.items()
            if name in shape.members and item is not None
        }
    if isinstance(shape, ListShape):
        return [_pruned(shape.member, item) for item in _listed(value)]
    if isinstance(shape, MapShape):
        assert isinstance(value, Mapping)
        return {key: _pruned(shape.value, item) for key, item in value.items()}
    return value


def _xml_text(shape: Shape, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return xml_safe(str(value))


def xml_safe(text: str) -> str:
    """Text without the characters that XML 1.0 cannot carry even when they are escaped."""
    if text.isprintable():
        return text
    return _NOT_XML.sub("\ufffd", text)


def _same(value: object) -> object:
    return value


def _base64(value: object) -> object:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _listed(value: object) -> list[object]:
    assert isinstance(value, list | tuple)
    return list(value)
