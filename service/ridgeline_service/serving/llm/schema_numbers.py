"""Numbers of a JSON schema that a grammar would change.

llguidance reads every number as a double and counts in 64 bits: of other numbers it makes their
neighbours without a word, and of some an endless recursion that ends the process. So a schema with
one is refused here, before the library sees it. Knows nothing of requests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import TypeGuard

_DOUBLE = 2**53
"""Below it every whole number is a double, and so is the one after it."""

_INT64 = 2**63
_OPEN = 10**18
"""Where a range with no other end has more digits than 64 bits count."""

_UINT32 = 2**32
_DECIMALS = 100
"""Decimals of a bound; for each of them the library nests its expression one level deeper."""

_STEP = 100_000
"""Of a number's multiples the library keeps every remainder: half a second for so many."""

_LOWEST = 1024 - _INT64
"""The least bound of whole numbers that is held to exactly: the next double, -2**63, is where the
library's recursion has no end."""

_BOUNDS = {
    "minimum": "maximum",
    "maximum": "minimum",
    "exclusiveMinimum": "",
    "exclusiveMaximum": "",
}
"""Each with the bound of the other side, where it may be a large whole number."""

_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
"""Keywords under which names stand, and no keywords."""

_GIVEN = ("const", "enum")
"""Keywords of values that are given as they are."""

_BOUND = "leave it out, or choose one between -2**53 and 2**53"
_STEPS = f"choose one of few decimals and of at most {_STEP} times its last"
_VALUE = "send such numbers as strings"

_Number = int | float


def within_int64(node: object, *, names: bool = False) -> object:
    """The schema, where its whole numbers begin at the least of 64 bits, as generated schemas have
    it, begun at the least that is held to: without the lowest 1024."""
    if isinstance(node, list):
        return [within_int64(one) for one in node]
    if not isinstance(node, Mapping):
        return node
    made = {
        key: value
        if key in _GIVEN and not names
        else within_int64(value, names=not names and key in _NAMED)
        for key, value in node.items()
    }
    if not names and node.get("minimum") == -_INT64 and _whole(node):
        made["minimum"] = _LOWEST
    return made


def unheld(schema: object) -> Iterator[str]:
    """What numbers anywhere in the schema cannot be held to exactly: each place, and why."""
    steps: dict[Fraction, str] = {}
    for place, keyword, around in _keywords(schema, ""):
        value = around[keyword]
        if keyword in _GIVEN:
            yield from _values(value, place)
        elif not _is_number(value):
            continue
        elif keyword in _BOUNDS and not _bound_held(around, keyword, value):
            yield f"{place}: {_short(value)} is a bound that cannot be held to exactly; {_BOUND}"
        elif keyword in ("minLength", "maxLength") and value >= _UINT32:
            yield f"{place}: {_short(value)} is too long; at most {_UINT32 - 1}"
        elif keyword == "multipleOf":
            if not _step_held(value):
                yield f"{place}: {_short(value)} is a step that cannot be held to exactly; {_STEPS}"
                continue
            steps.setdefault(Fraction(str(value)), place)
    if len(steps) > 1 and not _together(steps):
        yield f"{', '.join(steps.values())}: these cannot be held to exactly in one schema"


def _keywords(
    node: object, place: str, *, names: bool = False
) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    """Every keyword of every schema in it, wherever a reference may point: its place, its name and
    the schema around it."""
    if isinstance(node, list):
        for number, one in enumerate(node):
            yield from _keywords(one, f"{place}[{number}]")
    elif isinstance(node, Mapping):
        for key, value in node.items():
            inner = f"{place}.{key}" if place else key
            if not names:
                yield inner, key, node
            yield from _keywords(value, inner, names=not names and key in _NAMED)


def _whole(schema: Mapping[str, object]) -> bool:
    """Whether the numbers that the schema allows are whole by its own ``type``."""
    given = schema.get("type")
    kinds = given if isinstance(given, list) else [given]
    return "integer" in kinds and "number" not in kinds


def _values(value: object, place: str) -> Iterator[str]:
    """Of a value that is given as it is."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from _values(one, f"{place}[{number}]")
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _values(one, f"{place}.{key}")
    elif _is_number(value) and not _exact(value):
        yield f"{place}: {_short(value)} is a number that cannot be held to exactly; {_VALUE}"


def _bound_held(schema: Mapping[str, object], keyword: str, value: _Number) -> bool:
    if abs(value) < _DOUBLE:
        return -_exponent(value) <= _DECIMALS
    other = _BOUNDS[keyword]
    exclusive = schema.get(f"exclusive{keyword.capitalize()}") is True  # draft 4's
    if not (other and _whole(schema) and isinstance(value, int)) or exclusive:
        return False
    outward = value if keyword == "minimum" else -value
    return _exact(value) and (outward < _OPEN or _is_number(schema.get(other)))


def _exact(value: _Number) -> bool:
    """Whether the library reads this number, and writes the same one. The last of 64 bits is where
    it cuts off what is beyond."""
    if abs(value) < _DOUBLE or value == _INT64 - 1:
        return True
    return abs(value) < _INT64 and int(float(value)) == Decimal(str(value))


def _step_held(value: _Number) -> bool:
    """Whether the library finds the value's decimals, as it looks for them, and can count its
    multiples in 32 bits."""
    step = float(abs(value)) if abs(value) < _UINT32 else math.inf
    decimals = 0
    while step <= _STEP and not step.is_integer():
        step, decimals = step * 10, decimals + 1
    if step > _STEP or step * 10 ** max(decimals, 1) >= _UINT32:
        return False
    return Fraction(int(step), 10**decimals) == abs(Fraction(str(value)))


def _together(steps: Mapping[Fraction, str]) -> bool:
    """Whether multiples of one that are multiples of others too, as ``allOf`` may ask, can be
    counted."""
    scale = 10 ** max(0, *(-_exponent(float(step)) for step in steps))
    common = math.lcm(*(int(step * scale) for step in steps))
    return common <= _STEP and common**2 < _UINT32 and common * scale < _UINT32


def _exponent(value: _Number) -> int:
    return int(Decimal(str(value)).as_tuple().exponent)


def _is_number(value: object) -> TypeGuard[_Number]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
