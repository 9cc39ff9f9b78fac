"""Reading request bodies: JSON objects into typed requests, with complaints that name the field.

A field that we know and cannot honour is refused, unless its value asks for nothing. An unknown
one is refused where it is nearly the name of a known one: that is a slip whose loss the caller
would not notice. Others are ignored in bodies that many servers take, because clients send fields
of all of them; a body that is ``closed`` says all there is to know, and refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from ridgeline_service.serving.llm.errors import BadRequest, UnsupportedParameter

_NEAR = 0.8


class Body(BaseModel):
    """Base of every request body.

    ``neutral`` lists fields we know and do not support, with the values that ask for nothing
    (None always does); ``instead`` what may be asked for in the place of some; ``harmless`` those
    that change nothing in an answer.
    """

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)
    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {}
    instead: ClassVar[Mapping[str, str]] = {}
    harmless: ClassVar[frozenset[str]] = frozenset()
    closed: ClassVar[bool] = False

    @classmethod
    def read(cls, body: Mapping[str, object], *, under: str = "") -> Self:
        """Raises BadRequest naming the field; ``under`` is put in front of its name."""
        try:
            parsed = cls.model_validate(body)
        except ValidationError as error:
            raise _complaint(error, under) from None
        known = {*cls.model_fields, *cls.neutral, *cls.harmless}
        for name, value in (parsed.model_extra or {}).items():
            if name in cls.neutral:
                _check_neutral(under + name, value, cls.neutral[name], cls.instead.get(name))
            elif name not in known:
                near = get_close_matches(name, known, 1, _NEAR)
                meant = [cls.instead.get(one, one) for one in near]
                if near or (cls.closed and value is not None):
                    raise BadRequest(
                        f"Unknown parameter {under + name!r}.",
                        param=under + name,
                        hint=f"Did you mean {meant[0]!r}?" if meant else "Leave it out.",
                        code="unknown_parameter",
                    )
        return parsed


def parse_object(raw: bytes, content_type: str = "") -> dict[str, object]:
    """The JSON object of a request, whatever its type is called. Raises BadRequest."""
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        if content_type and "json" not in content_type.lower():
            raise BadRequest(
                f"A body of content type {content_type[:100]} is not read here.",
                hint="Send a JSON object, as application/json.",
            ) from None
        raise BadRequest(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise BadRequest(f"The request body must be a JSON object, not {_kind(value)}.")
    return value


def texts_or_tokens(
    given: str | list[str] | list[int] | list[list[int]],
) -> tuple[list[str], list[list[int]]]:
    """The four forms in which OpenAI takes text, as a list of texts or a list of token lists.

    One of the two is empty; an empty list stands for one empty token list.
    """
    if isinstance(given, str):
        return [given], []
    texts = [item for item in given if isinstance(item, str)]
    if texts:
        return texts, []
    lists = [item for item in given if isinstance(item, list)]
    return [], lists or [[item for item in given if isinstance(item, int)]]


def _check_neutral(
    name: str, value: object, neutral: tuple[object, ...], instead: str | None
) -> None:
    if value is None or value in neutral:
        return
    allowed = f"Leave it out, or set it to {neutral[0]!r}." if neutral else "Leave it out."
    if instead is not None:
        allowed = f"Use {instead} in its place."
    raise UnsupportedParameter(
        f"{name} is not supported by this endpoint, and its value would matter.",
        param=name,
        hint=allowed,
    )


def _complaint(error: ValidationError, under: str) -> BadRequest:
    faults = error.errors(include_url=False)
    # A union reports once per branch, so those of the first field at fault belong together.
    first = faults[0]["loc"][:1]
    together = [fault for fault in faults if fault["loc"][:1] == first]
    long = [fault for fault in together if fault["type"] == "too_long"]
    others = [fault for fault in together if fault not in long]
    if long and not (others and _numbers(long[0]["input"])):
        param, bound = under + ".".join(_path(long[0]["loc"])), long[0]["ctx"]
        return BadRequest(
            f"{param}: at most {bound['max_length']}, not {bound['actual_length']}.",
            param=param,
            code="invalid_value",
        )
    together = others
    deepest = max(together, key=lambda fault: len(_path(fault["loc"])))
    param = under + ".".join(_path(deepest["loc"]))
    if deepest["type"] == "missing":
        return BadRequest(f"{param} is missing.", param=param, code="missing_parameter")
    words = dict.fromkeys(str(fault["msg"]) for fault in together)
    expected = ", or ".join(word.removeprefix("Value error, ") for word in words)
    return BadRequest(f"{param}: {expected}.", param=param, code="invalid_value")


def _numbers(value: object) -> bool:
    """Whether this is, or was to be, one list of tokens: its length is another matter."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], (int, float))


def _path(location: tuple[int | str, ...]) -> list[str]:
    """A location without the names of union branches, such as ``list[str]``, ``str`` or those of
    our classes, which are no fields: fields begin with a small letter."""
    branches = {"str", "int", "float", "bool"}
    return [
        str(part)
        for part in location
        if isinstance(part, int)
        or (part not in branches and "[" not in part and not part[:1].isupper())
    ]


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "something else")
