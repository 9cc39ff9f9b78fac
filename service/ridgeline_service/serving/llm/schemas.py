"""What authors of JSON schemas leave unsaid.

A schema with ``properties`` and no ``type`` allows any string or number too, as the specification
has it. Those who write one mean an object, and outlines (TGI's) and xgrammar (vLLM's) read it so.
"""

from __future__ import annotations

from collections.abc import Mapping

_SAYS_WHAT = frozenset({"type", "$ref", "const", "enum", "not"})
"""A schema with one of these says itself what it is of, and so does one of whose `_IN_PLACE`
schemas any does: a null that it allows must stay allowed."""

_ONE = ("items", "additionalProperties", "unevaluatedProperties", "contains")
_IN_PLACE = ("anyOf", "oneOf", "allOf")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
"""Keywords that hold one schema, a list of them for the same value, and schemas by name. ``not``
and ``if`` are missing on purpose: what is meant to fit nothing must not become narrower."""


def with_objects(schema: Mapping[str, object], *, said: bool = False) -> dict[str, object]:
    """The schema, and those in it, with ``type`` ``object`` where they have ``properties`` and
    nobody says what they are of; ``said``: a schema around this one does, of the same value."""
    made = {key: _inside(key, value, schema, said) for key, value in schema.items()}
    if "properties" in schema and not (said or _says(schema)):
        made["type"] = "object"
    return made


def _says(schema: object) -> bool:
    if not isinstance(schema, Mapping):
        return False
    return not schema.keys().isdisjoint(_SAYS_WHAT) or any(
        _says(one) for key in _IN_PLACE for one in _listed(schema.get(key))
    )


def _inside(key: str, value: object, around: Mapping[str, object], said: bool) -> object:
    if key == "prefixItems" and isinstance(value, list):
        return [_each(one) for one in value]
    if key in _IN_PLACE and isinstance(value, list):
        # Each of allOf holds for the value, so one of them speaks for the others; of anyOf and
        # oneOf each is for itself.
        others = around if key == "allOf" else {**around, key: []}
        told = said or _says(others)
        return [_each(one, said=told) for one in value]
    if key in _NAMED and isinstance(value, Mapping):
        return {name: _each(one) for name, one in value.items()}
    return _each(value) if key in _ONE else value


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _each(value: object, *, said: bool = False) -> object:
    return with_objects(value, said=said) if isinstance(value, Mapping) else value
