"""Numbers of a JSON schema that a grammar would change.

llguidance reads every number as a double and counts in 64 bits: of other numbers it makes their
neighbours without a word, and of some an endless recursion that ends the process. So a schema with
one is refused here, before the library sees it; but for the bounds of whole numbers that end
ranges of 64 bits, or are no doubles: they become the next that can be held to, within the range.
Knows nothing of requests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import TypeGuard

from ridgeline_service.serving.llm.schema_walk import Node, Schema, Schemas

_DOUBLE = 2**53
"""Below it every whole number is a double, and so is the one after it."""

_INT64 = 2**63
_OPEN = 10**18
"""Where a range with no other end has more digits than 64 bits count."""

_UINT32 = 2**32
_UINT64 = 2**64
_DECIMALS = 100
"""Decimals of a bound; for each of them the library nests its expression one level deeper."""

_POWERS = 308
"""The powers of ten that doubles have."""

_STEP = 2**17
"""Of a number's multiples the library keeps every remainder: a second for so many."""

_ROUND_STEP = 100
"""Of as many times a power of ten it keeps few."""

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

_COUNTS = ("minLength", "maxLength")

_BOUND = "leave it out, or choose one between -2**53 and 2**53"
_STEPS = f"choose one of few decimals and of at most {_STEP} times its last"
_VALUE = "send such numbers as strings"

_Number = int | float


def unheld(schema: object) -> Iterator[str]:
    """What numbers of the schema cannot be held to exactly: each place, and why. Changes bounds in
    it to the next that can be, see above."""
    schemas = Schemas(schema)
    joined = list(schemas.together())
    shared = {id(one.node) for group in joined for one in group}
    for one in schemas:
        _narrow(one.node)
        yield from _unheld(one, alone=id(one.node) not in shared)
    for group in joined:
        steps = _steps(group)
        if len(steps) > 1 and not _together(steps):
            yield f"{', '.join(steps.values())}: these cannot be held to exactly in one schema"
            return


def _unheld(schema: Schema, *, alone: bool) -> Iterator[str]:
    """Of one schema, without those in it; ``alone``: no other holds for the same value."""
    for keyword, value in schema.node.items():
        place = f"{schema.place}.{keyword}" if schema.place else keyword
        if keyword == "const":
            yield from _values([value], [place], large=alone and not _whole(schema.node))
        elif keyword == "enum" and isinstance(value, list):
            places = [f"{place}[{number}]" for number in range(len(value))]
            yield from _values(value, places, large=alone and not _whole(schema.node))
        elif not _is_number(value):
            continue
        elif keyword in _BOUNDS and not _bound_held(schema.node, keyword, value):
            yield f"{place}: {_short(value)} is a bound that cannot be held to exactly; {_BOUND}"
        elif keyword in _COUNTS and value >= _UINT32:
            yield f"{place}: {_short(value)} is too long; at most {_UINT32 - 1}"
        elif keyword == "multipleOf" and not _step_held(value):
            yield f"{place}: {_short(value)} is a step that cannot be held to exactly; {_STEPS}"


def _narrow(node: Node) -> None:
    """Makes whole bounds integers, and those of whole numbers the next that can be held to, where
    they lie within a range of 64 bits."""
    for keyword in _BOUNDS.keys() & node.keys():
        value = node[keyword]
        if isinstance(value, float) and value.is_integer():
            node[keyword] = int(value)
    if not _whole(node):
        return
    _inclusive(node, "minimum", 1)
    _inclusive(node, "maximum", -1)
    least, most = node.get("minimum"), node.get("maximum")
    if _is_whole(least) and -_INT64 <= least <= -_DOUBLE:
        node["minimum"] = max(_LOWEST, _double(least, up=True))
    elif _is_whole(least) and _DOUBLE <= least < _INT64:
        node["minimum"] = _double(least, up=True)
    if _is_whole(most) and _DOUBLE <= most < _UINT64:
        node["maximum"] = _INT64 - 1 if most >= _INT64 - 1 else _double(most, up=False)
    elif _is_whole(most) and -_INT64 <= most <= -_DOUBLE:
        node["maximum"] = _double(most, up=False)


def _inclusive(node: Node, keyword: str, inward: int) -> None:
    """Says an exclusive bound of many digits by the other keyword, where that is free."""
    exclusive = f"exclusive{keyword.capitalize()}"
    value = node.get(exclusive)
    if _is_whole(value) and abs(value) > _DOUBLE and keyword not in node:
        node[keyword] = value + inward
        del node[exclusive]


def _double(value: int, *, up: bool) -> int:
    """The next whole number from there that is a double."""
    near = float(value)
    if int(near) != value and (near > value) != up:
        near = math.nextafter(near, math.inf if up else -math.inf)
    return int(near)


def _whole(schema: Mapping[str, object]) -> bool:
    """Whether the numbers that the schema allows are whole by its own ``type``."""
    given = schema.get("type")
    kinds = given if isinstance(given, list) else [given]
    return "integer" in kinds and "number" not in kinds


def _values(values: list[object], places: list[str], *, large: bool = False) -> Iterator[str]:
    """Of values that are given as they are; ``large``: also such as only doubles hold."""
    for value, place in zip(values, places, strict=True):
        if isinstance(value, list):
            yield from _values(value, [f"{place}[{number}]" for number in range(len(value))])
        elif isinstance(value, dict):
            yield from _values(list(value.values()), [f"{place}.{key}" for key in value])
        elif not _is_number(value) or _exact(value) or (large and _read(value)):
            continue
        else:
            yield f"{place}: {_short(value)} is a number that cannot be held to exactly; {_VALUE}"


def _bound_held(schema: Mapping[str, object], keyword: str, value: _Number) -> bool:
    if abs(value) < _DOUBLE:
        return -_exponent(value) <= _DECIMALS and (isinstance(value, int) or _read(value))
    other = _BOUNDS[keyword]
    exclusive = schema.get(f"exclusive{keyword.capitalize()}") is True  # draft 4's
    if not other or exclusive or not isinstance(value, int):
        return False
    if not _whole(schema):
        # Of other numbers the library writes a bound with the fewest digits that tell its double.
        return abs(value) <= _OPEN and Decimal(str(float(value))) == value
    outward = value if keyword == "minimum" else -value
    return _exact(value) and (outward < _OPEN or _is_number(schema.get(other)))


def _exact(value: _Number) -> bool:
    """Whether the library reads this number, and writes the same one. The last of 64 bits is where
    it cuts off what is beyond."""
    if isinstance(value, float) and not _read(value):
        return False
    if abs(value) < _DOUBLE or value == _INT64 - 1:
        return True
    return abs(value) < _INT64 and int(float(value)) == Decimal(str(value))


def _read(value: _Number) -> bool:
    """Whether it is a double that the library reads as it is: it makes one of the digits, one of
    the power of ten, and of the two the number, which is at times the next one."""
    if not isinstance(value, float) or not math.isfinite(value):
        return False
    _, digits, exponent = Decimal(str(value)).as_tuple()
    if not isinstance(exponent, int) or abs(exponent) > _POWERS:
        return False
    number, power = float(int("".join(map(str, digits)))), float(f"1e{abs(exponent)}")
    return (number / power if exponent < 0 else number * power) == abs(value)


def _step_held(value: _Number) -> bool:
    """Whether the library finds the value's decimals, as it looks for them, and can count its
    multiples in 32 bits."""
    step = float(abs(value)) if abs(value) < _UINT32 else math.inf
    decimals = 0
    while step <= _STEP and not step.is_integer():
        step, decimals = step * 10, decimals + 1
    if not (step <= _STEP or _is_round(step)) or step * 10 ** max(decimals, 1) >= _UINT32:
        return False
    return Fraction(int(step), 10**decimals) == abs(Fraction(str(value)))


def _is_round(step: float) -> bool:
    while step > _ROUND_STEP and step % 10 == 0 and math.isfinite(step):
        step /= 10
    return step <= _ROUND_STEP


def _steps(schemas: list[Schema]) -> dict[Fraction, str]:
    """The steps of the schemas that can be held to alone, each with the place of its first."""
    steps: dict[Fraction, str] = {}
    for place, node in schemas:
        value = node.get("multipleOf")
        if _is_number(value) and _step_held(value):
            steps.setdefault(Fraction(str(value)), f"{place}.multipleOf".lstrip("."))
    return steps


def _together(steps: Mapping[Fraction, str]) -> bool:
    """Whether multiples of one that are multiples of others too, as ``allOf`` may ask, can be
    counted."""
    scale = 10 ** max(_decimals(step) for step in steps)
    common = math.lcm(*(int(step * scale) for step in steps))
    return common <= _STEP and common**2 < _UINT32 and common * scale < _UINT32


def _decimals(step: Fraction) -> int:
    return next(places for places in range(_DECIMALS) if (step * 10**places).denominator == 1)


def _exponent(value: _Number) -> int:
    return int(Decimal(str(value)).as_tuple().exponent)


def _is_number(value: object) -> TypeGuard[_Number]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
