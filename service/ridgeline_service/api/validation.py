"""Input checks compiled from botocore shapes: types, required members, lengths, ranges, patterns,
enums, unions and unknown members, with the wording that AWS's services use.

A shape is compiled once into a closure that checks and converts (JSON numbers to datetimes, base64
to bytes); so a request costs no walk over the model. botocore's own ParamValidator checks a subset
of this on the client side; a test holds that whatever it refuses is refused here too. What a value
*means* (does the role exist, is the image known) is not known here.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeAlias

from botocore.model import ListShape, MapShape, Shape, StructureShape

from ridgeline.errors import did_you_mean
from ridgeline_service.api.patterns import python_pattern
from ridgeline_service.api.shapes import wire_name
from ridgeline_service.errors import AwsError

# (parent, part): rendered only when something is wrong. A part is shown as it stands here, so what
# the caller wrote (a map's key, an unknown member) keeps its case.
Path: TypeAlias = "tuple[Path, str] | None"
Check: TypeAlias = Callable[[object, Path, list[str]], object]

_SHOWN_CHARS = 256
_LIMITS = {"integer": 2**31, "long": 2**63}
_EARLIEST, _LATEST = -62_135_596_800, 253_402_300_799
# Instance types are judged where their profiles are known, and targets of the compiler where it is.
# Accelerators and AMIs appear every month: an old enum must not refuse them.
_OPEN_ENUMS = ("InstanceType", "AcceleratorType", "AmiVersion", "TargetDevice")


class SerializationException(AwsError):
    """The body cannot be read as the operation's input: not JSON, or a member of a wrong type."""

    code = "SerializationException"
    http_status = 400


class InvalidRequest(AwsError):
    """Members that break a constraint; ``code`` is the service's own code for that."""

    code = "ValidationException"
    http_status = 400


class Validator:
    """Checks requests against the shapes of one service, whose ``code`` it answers with."""

    def __init__(self, code: str) -> None:
        self._code = code
        self._compiled: dict[str, Check] = {}

    def check(self, shape: StructureShape | None, value: object) -> dict[str, object]:
        """The request with its members converted and nulls removed.

        Raises SerializationException for a value of the wrong type, and InvalidRequest naming
        every member that is missing, unknown or breaks a constraint.
        """
        if not isinstance(value, dict):
            raise SerializationException(f"The request must be a structure, not {_kind(value)}.")
        errors: list[str] = []
        if shape is None:
            checked: object = {}
            errors.extend(_unknown(str(name), (None, str(name)), ()) for name in value)
        else:
            checked = self.compile(shape)(value, None, errors)
        if errors:
            many = "s" if len(errors) > 1 else ""
            raise InvalidRequest(
                f"{len(errors)} validation error{many} detected: {'; '.join(errors[:10])}",
                code=self._code,
            )
        assert isinstance(checked, dict)
        return checked

    def compile(self, shape: Shape) -> Check:
        """The check for a shape; recursive shapes meet their own entry and resolve it later."""
        known = self._compiled.get(shape.name)
        if known is not None:
            return known
        self._compiled[shape.name] = lambda value, path, errors: self._compiled[shape.name](
            value, path, errors
        )
        match shape.type_name:
            case "structure":
                compiled = self._structure(shape)
            case "list":
                compiled = self._list(shape)
            case "map":
                compiled = self._map(shape)
            case "string":
                compiled = _string(shape)
            case "integer" | "long":
                compiled = _integer(shape)
            case "float" | "double":
                compiled = _float(shape)
            case "boolean":
                compiled = _boolean
            case "timestamp":
                compiled = _timestamp
            case _:
                compiled = _blob(shape)
        self._compiled[shape.name] = compiled
        return compiled

    def _structure(self, shape: StructureShape) -> Check:
        members = {
            wire_name(member, name): (name, _lower_camel(name), self.compile(member))
            for name, member in shape.members.items()
        }
        wire = {name: wire_name(member, name) for name, member in shape.members.items()}
        required = tuple(wire[name] for name in shape.required_members)
        union = bool(shape.is_tagged_union)

        def check(value: object, path: Path, errors: list[str]) -> object:
            if not isinstance(value, dict):
                raise _wrong_type(value, "Structure", path)
            checked: dict[str, object] = {}
            for key, item in value.items():
                if item is None:
                    continue
                known = members.get(key)
                if known is None:
                    if key != "__type":
                        errors.append(_unknown(str(key), (path, str(key)), members))
                    continue
                name, shown, check_member = known
                checked[name] = check_member(item, (path, shown), errors)
            for key in required:
                if value.get(key) is None:
                    where = _render((path, _lower_camel(key)))
                    errors.append(
                        f"Value null at '{where}' failed to satisfy constraint: "
                        "Member must not be null"
                    )
            if union and len(checked) != 1:
                errors.append(
                    f"Value at '{_render(path)}' failed to satisfy constraint: exactly one of "
                    f"{', '.join(members)} must be set"
                )
            return checked

        return check

    def _list(self, shape: ListShape) -> Check:
        check_member = self.compile(shape.member)
        bounds = _bounds(shape, "length")

        def check(value: object, path: Path, errors: list[str]) -> object:
            if not isinstance(value, list):
                raise _wrong_type(value, "List", path)
            bounds(len(value), value, path, errors)
            checked = []
            for index, item in enumerate(value, start=1):
                where = ((path, str(index)), "member")
                if item is None:
                    errors.append(
                        f"Value null at '{_render(where)}' failed to satisfy constraint: "
                        "Member must not be null"
                    )
                else:
                    checked.append(check_member(item, where, errors))
            return checked

        return check

    def _map(self, shape: MapShape) -> Check:
        check_key = self.compile(shape.key)
        check_value = self.compile(shape.value)
        bounds = _bounds(shape, "length")

        def check(value: object, path: Path, errors: list[str]) -> object:
            if not isinstance(value, dict):
                raise _wrong_type(value, "Map", path)
            bounds(len(value), value, path, errors)
            checked: dict[object, object] = {}
            for key, item in value.items():
                checked_key = check_key(key, ((path, str(key)[:64]), "key"), errors)
                where = ((path, str(key)[:64]), "member")
                if item is not None:
                    checked[checked_key] = check_value(item, where, errors)
            return checked

        return check


def _string(shape: Shape) -> Check:
    bounds = _bounds(shape, "length")
    pattern = shape.metadata.get("pattern")
    compiled = python_pattern(pattern) if pattern else None
    maximum = shape.metadata.get("max", math.inf)
    closed = shape.enum and not shape.name.endswith(_OPEN_ENUMS)
    allowed = frozenset(shape.enum) if closed else None
    shown = ", ".join(shape.enum)
    sensitive = bool(shape.metadata.get("sensitive"))

    def check(value: object, path: Path, errors: list[str]) -> object:
        if not isinstance(value, str):
            raise _wrong_type(value, "String", path)
        if not value.isascii() or "\0" in value:
            _refuse_unstorable(value, path)
        bounds(len(value), None if sensitive else value, path, errors)
        # An over-long value is never matched: a pattern's cost grows with its input.
        if compiled is not None and len(value) <= maximum and compiled.fullmatch(value) is None:
            errors.append(
                _failed(
                    None if sensitive else value,
                    path,
                    f"Member must satisfy regular expression pattern: {pattern}",
                )
            )
        if allowed is not None and value not in allowed:
            errors.append(_failed(value, path, f"Member must satisfy enum value set: [{shown}]"))
        return value

    return check


def _integer(shape: Shape) -> Check:
    bounds = _bounds(shape, "value")
    limit = _LIMITS[shape.type_name]
    wanted = "Integer" if shape.type_name == "integer" else "Long"

    def check(value: object, path: Path, errors: list[str]) -> object:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not -limit <= value < limit:
            raise _wrong_type(value, wanted, path)
        bounds(value, value, path, errors)
        return value

    return check


def _float(shape: Shape) -> Check:
    bounds = _bounds(shape, "value")

    def check(value: object, path: Path, errors: list[str]) -> object:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(value, "Double", path)
        if not abs(value) <= sys.float_info.max:  # also false for NaN and infinity
            raise _wrong_type(value, "Double", path)
        bounds(value, value, path, errors)
        return float(value)

    return check


def _boolean(value: object, path: Path, errors: list[str]) -> object:
    if not isinstance(value, bool):
        raise _wrong_type(value, "Boolean", path)
    return value


def _timestamp(value: object, path: Path, errors: list[str]) -> object:
    """Seconds since the epoch, or ISO 8601 text; the answer is aware and in UTC."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if _EARLIEST <= value <= _LATEST:
            return datetime.fromtimestamp(value, UTC)
    elif isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
            return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # answered below like every other value that is no time
    raise _wrong_type(value, "Timestamp", path)


def _blob(shape: Shape) -> Check:
    bounds = _bounds(shape, "length")

    def check(value: object, path: Path, errors: list[str]) -> object:
        if isinstance(value, str):
            try:
                value = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise SerializationException(
                    f"The value at '{_render(path)}' is not base64."
                ) from None
        if not isinstance(value, bytes | bytearray):
            raise _wrong_type(value, "Blob", path)
        bounds(len(value), None, path, errors)
        return bytes(value)

    return check


def _bounds(shape: Shape, measure: str) -> Callable[[float, object, Path, list[str]], None]:
    minimum = shape.metadata.get("min")
    maximum = shape.metadata.get("max")

    def check(size: float, value: object, path: Path, errors: list[str]) -> None:
        if minimum is not None and size < minimum:
            errors.append(
                _failed(
                    value,
                    path,
                    f"Member must have {measure} greater than or equal to {minimum}",
                )
            )
        if maximum is not None and size > maximum:
            errors.append(
                _failed(value, path, f"Member must have {measure} less than or equal to {maximum}")
            )

    return check


def _refuse_unstorable(value: str, path: Path) -> None:
    """Text that no database or UTF-8 answer can hold must end here, not as a crash later."""
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise SerializationException(
            f"The value at '{_render(path)}' holds a null character or half a surrogate pair."
        )


def _failed(value: object, path: Path, constraint: str) -> str:
    shown = "" if value is None else f" '{_show(value)}'"
    return f"Value{shown} at '{_render(path)}' failed to satisfy constraint: {constraint}"


def _unknown(key: str, path: Path, known: Mapping[str, object] | tuple[str, ...]) -> str:
    hint = did_you_mean(key[:100], known) if known else "The operation takes no members."
    return f"Unknown member '{_render(path)}'. {hint}".rstrip(".") + (
        "" if hint.endswith("?") else "."
    )


def _wrong_type(value: object, wanted: str, path: Path) -> SerializationException:
    return SerializationException(
        f"{_kind(value)} cannot be converted to {wanted} at '{_render(path)}'."
    )


def _kind(value: object) -> str:
    match value:
        case None:
            return "NULL_VALUE"
        case bool():
            return "TRUE_VALUE" if value else "FALSE_VALUE"
        case int() | float():
            return "NUMBER_VALUE"
        case str():
            return "STRING_VALUE"
        case list():
            return "LIST_VALUE"
        case dict():
            return "STRUCTURE_VALUE"
        case _:
            return "BINARY_VALUE"


def _show(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


def _render(path: Path) -> str:
    """A path as AWS writes it: ``productionVariants.1.member.modelName``."""
    parts: list[str] = []
    while path is not None:
        path, name = path
        parts.append(name[:100])
    return ".".join(reversed(parts))


def _lower_camel(member: str) -> str:
    """AWS's spelling of a member of the model inside a path."""
    return member[:1].lower() + member[1:]
