"""The tools of a chat request, and which of them must be called.

A call that must happen is not left to the model: its answer is formed by a grammar, so that it is
valid whatever the model would have said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Len
from pydantic import BaseModel, BeforeValidator, ConfigDict, field_validator

from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.grammar import GrammarSpec

MAX_TOOLS = 128

_SILENT = frozenset(
    {
        "$comment",
        "$defs",
        "$schema",
        "default",
        "definitions",
        "description",
        "examples",
        "properties",
        "required",
        "title",
        "type",
    }
)
"""Keywords of a schema that declare no parameter, as long as there are no properties. An empty list
of parameters is how OpenAI's API declares a function without any."""

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


class Function(BaseModel):
    """A function as OpenAI declares it. ``parameters`` is a JSON schema of its arguments."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    name: str
    description: str | None = None
    parameters: dict[str, object] | None = None
    strict: bool | None = None

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("must be 1 to 64 letters, digits, '_', '-' or '.'")
        return value

    @property
    def schema_of_arguments(self) -> dict[str, object]:
        """As declared. A function of which no parameter is declared takes none."""
        schema = {"type": "object", **(self.parameters or {})}
        if schema.keys() <= _SILENT and not (schema.get("properties") or schema.get("required")):
            schema["additionalProperties"] = False
        return schema


class Tool(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    type: Literal["function"]
    function: Function


class NamedFunction(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    name: str


class NamedChoice(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    type: Literal["function"] = "function"
    function: NamedFunction


Tools = Annotated[list[Tool], Len(max_length=MAX_TOOLS)]


def _known_choice(value: object) -> object:
    function = value.get("type", "function") if isinstance(value, Mapping) else None
    if value in ("none", "auto", "required", None) or function == "function":
        return value
    raise ValueError(
        "must be 'none', 'auto', 'required' or {'type': 'function', 'function': {'name': ...}}"
    )


ToolChoice = Annotated[
    Literal["none", "auto", "required"] | NamedChoice | None, BeforeValidator(_known_choice)
]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What a request's tools mean for its prompt and its answer.

    ``named`` is the one function that must be called, ``required`` that some must. Neither: the
    model decides, and its calls are found in what it says.
    """

    tools: tuple[Tool, ...]
    named: str | None = None
    required: bool = False
    parallel: bool = True

    @property
    def forced(self) -> bool:
        """Whether the answer is calls and nothing else."""
        return self.required or self.named is not None

    @property
    def names(self) -> frozenset[str]:
        return frozenset(tool.function.name for tool in self.tools)

    @property
    def declared(self) -> list[dict[str, object]]:
        """The tools as chat templates expect them."""
        return [tool.model_dump(exclude_none=True) for tool in self.tools]

    def grammar(self) -> GrammarSpec | None:
        """The form of an answer that must be a call."""
        if self.named is not None:
            [function] = [tool.function for tool in self.tools if tool.function.name == self.named]
            return GrammarSpec.json(function.schema_of_arguments, "tools")
        if not self.required:
            return None
        calls = [
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool.function.name},
                    "arguments": _local(tool.function.schema_of_arguments, place),
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for place, tool in enumerate(self.tools)
        ]
        schema: dict[str, object] = {"type": "array", "items": {"anyOf": calls}, "minItems": 1}
        if not self.parallel:
            schema["maxItems"] = 1
        return GrammarSpec.json(schema, "tools")


def read_tool_use(
    tools: Sequence[Tool] | None, choice: ToolChoice, parallel: bool | None
) -> ToolUse | None:
    """None for a request without tools, or that forbids them. Raises BadRequest."""
    if (isinstance(choice, NamedChoice) or choice == "required") and not tools:
        raise BadRequest("tool_choice needs tools to choose from.", param="tool_choice")
    if not tools or choice == "none":
        return None
    names = [tool.function.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadRequest(f"tools: {twice!r} is declared twice.", param="tools")
    named = choice.function.name if isinstance(choice, NamedChoice) else None
    if named is not None and named not in names:
        raise BadRequest(
            f"tool_choice: there is no tool {named!r}.",
            param="tool_choice",
            hint=f"Declared: {', '.join(names)}.",
        )
    return ToolUse(tuple(tools), named, choice == "required", parallel is not False)


def _local(schema: Mapping[str, object], place: int) -> dict[str, object]:
    """A schema inside of another, its references (``#/$defs/...``) still its own."""
    return (
        {"$id": f"https://tools.invalid/{place}", **schema}
        if "$ref" in repr(schema)
        else {**schema}
    )
