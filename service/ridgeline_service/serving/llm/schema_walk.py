"""The schemas within a JSON schema: wherever the specification has one, or a reference points.

What stands elsewhere (``const``, ``default``, ``examples``, unknown keywords) is data, and
constrains nothing. Knows nothing of what the schemas say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote

_ONE = (
    "items",
    "additionalItems",
    "additionalProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contains",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
)
_LISTED = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords that hold one schema, a list of them, and schemas by name."""

_SAYS_NOTHING = frozenset(
    {
        "$schema",
        "$id",
        "$comment",
        "$anchor",
        "$defs",
        "definitions",
        "title",
        "description",
        "default",
        "examples",
        "example",
        "deprecated",
        "readOnly",
        "writeOnly",
    }
)
_SPLITS = frozenset(
    {
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "dependentSchemas",
        "contains",
        "unevaluatedItems",
        "unevaluatedProperties",
        "$dynamicRef",
        "$recursiveRef",
    }
)
"""Keywords under which schemas may hold for the same value, whatever else there is."""

_ASIDE = ("$defs", "definitions")
"""Keywords of schemas that stand there for references alone."""

Node = dict[str, object]


class Schema(NamedTuple):
    """One of them, and where it stands."""

    place: str
    node: Node


class Schemas:
    """All schemas of one, each once. Where references are by other than a path from the root, what
    they point to is not sought: then every object is one."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._by_path = True
        self._all: dict[int, Schema] = {}
        if isinstance(root, dict):
            self._visit([Schema("", root)])
        if not self._by_path:
            self._visit(list(_objects(root)))

    def __iter__(self) -> Iterator[Schema]:
        return iter(self._all.values())

    def together(self) -> list[list[Schema]]:
        """Schemas of which several may hold for one value: what is below places where two begin
        to, in a list each unless they share some. Those that meet no other are in no list."""
        if not self._by_path:
            return [list(self)]
        shared: dict[int, list[int]] = {}
        left = [schema for schema in self if _joins(schema.node)]
        while left:
            one = left.pop()
            if id(one.node) not in shared:
                inner = list(self._below(one))
                shared[id(one.node)] = [id(schema.node) for schema in inner]
                left += inner
        order = {one: number for number, one in enumerate(self._all)}
        groups = [sorted(group, key=order.__getitem__) for group in _connected(shared)]
        return [[self._all[one] for one in group] for group in groups]

    def _visit(self, schemas: list[Schema]) -> None:
        left = schemas[::-1]
        while left:
            schema = left.pop()
            if id(schema.node) not in self._all:
                self._all[id(schema.node)] = schema
                self._by_path &= schema.node is self._root or not _is_named(schema.node)
                left += reversed(list(self._below(schema, aside=True)))

    def _below(self, schema: Schema, *, aside: bool = False) -> Iterator[Schema]:
        yield from _within(schema, aside=aside)
        reference = schema.node.get("$ref")
        if not isinstance(reference, str):
            return
        if reference[:2] not in ("#", "#/"):
            self._by_path = False
        elif isinstance(node := _pointed(self._root, unquote(reference[1:])), dict):
            yield Schema(reference[2:].replace("/", "."), node)


def _is_named(node: Node) -> bool:
    """Whether references within it, or to it, may be by a name."""
    return any(isinstance(node.get(key), str) for key in ("$id", "id", "$dynamicRef"))


def _connected(below: dict[int, list[int]]) -> list[set[int]]:
    beside: dict[int, list[int]] = {one: list(inner) for one, inner in below.items()}
    for one, inner in below.items():
        for other in inner:
            beside[other].append(one)
    groups: list[set[int]] = []
    seen: set[int] = set()
    for one in below:
        group: set[int] = set()
        left = [one]
        while left:
            if (next_one := left.pop()) not in seen:
                seen.add(next_one)
                group.add(next_one)
                left += beside[next_one]
        if group:
            groups.append(group)
    return groups


def _objects(node: object, place: str = "", *, names: bool = False) -> Iterator[Schema]:
    if isinstance(node, list):
        for number, one in enumerate(node):
            yield from _objects(one, f"{place}[{number}]")
    elif isinstance(node, dict):
        if not names:
            yield Schema(place, node)
        for key, value in node.items():
            inner = f"{place}.{key}" if place else key
            yield from _objects(value, inner, names=not names and key in _NAMED)


def _within(schema: Schema, *, aside: bool) -> Iterator[Schema]:
    """Those that it holds; ``aside``: also those that stand there for references alone."""
    for key, value in schema.node.items():
        place = f"{schema.place}.{key}" if schema.place else key
        if key in _ONE and isinstance(value, dict):
            yield Schema(place, value)
        elif key in _LISTED and isinstance(value, list):
            for number, one in enumerate(value):
                if isinstance(one, dict):
                    yield Schema(f"{place}[{number}]", one)
        elif key in _NAMED and isinstance(value, dict) and (aside or key not in _ASIDE):
            for name, one in value.items():
                if isinstance(one, dict):
                    yield Schema(f"{place}.{name}", one)


def _joins(node: Node) -> bool:
    """Whether more than one of the schemas in it may hold for the same value."""
    if not node.keys().isdisjoint(_SPLITS):
        return True
    patterns = node.get("patternProperties")
    if isinstance(patterns, dict) and len(patterns) + ("properties" in node) > 1:
        return True
    every = node.get("allOf")
    if isinstance(every, list) and len(every) > 1:
        return True
    in_place = node.keys() & {"allOf", "anyOf", "$ref"}
    return bool(in_place) and len(node.keys() - _SAYS_NOTHING) > 1


def _pointed(node: object, pointer: str) -> object:
    """What a JSON pointer (RFC 6901) names, None where there is nothing."""
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            return None
    return node
