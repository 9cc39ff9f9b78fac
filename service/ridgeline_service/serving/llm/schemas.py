"""What authors of JSON schemas leave unsaid.

A schema with ``properties`` and no ``type`` allows any string or number too, as the specification
has it. Those who write one mean an object, and outlines (TGI's) and xgrammar (vLLM's) read it so.
"""

from __future__ import annotations

from collections.abc import Mapping

_SAYS_WHAT = frozenset({"type", "$ref", "const", "enum"})
"""A schema with one of these says itself what it is of."""

_ONE = ("items", "additionalProperties", "unevaluatedProperties", "contains")
_LISTED = ("prefixItems", "anyOf", "oneOf", "allOf")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
"""Keywords that hold one schema, a list of them, and schemas by name. ``not`` and ``if`` are
missing on purpose: what is meant to fit nothing must not become narrower."""


def with_objects(schema: Mapping[str, object]) -> dict[str, object]:
    """The schema, and those in it, with ``type`` ``object`` where they have ``properties`` and do
    not say what they are of."""
    made = {key: _inside(key, value) for key, value in schema.items()}
    if "properties" in made and not made.keys() & _SAYS_WHAT:
        made["type"] = "object"
    return made


def _inside(key: str, value: object) -> object:
    if key in _LISTED and isinstance(value, list):
        return [_each(one) for one in value]
    if key in _NAMED and isinstance(value, Mapping):
        return {name: _each(one) for name, one in value.items()}
    return _each(value) if key in _ONE else value


def _each(value: object) -> object:
    return with_objects(value) if isinstance(value, Mapping) else value
