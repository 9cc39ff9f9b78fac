"""Which form an answer must have: ``response_format`` and the extra fields of vLLM's.

``guided_json`` and its kin are vLLM's older names, ``structured_outputs`` the newer.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Field

from ridgeline_service.serving.llm.errors import BadRequest, UnsupportedParameter
from ridgeline_service.serving.llm.grammar import Form, GrammarSpec

Schema = str | dict[str, object] | bool
Choices = Annotated[list[str], Len(min_length=1, max_length=1024)]


class JsonSchema(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    name: str | None = None
    # A field of that name would hide one of pydantic's own.
    schema_: Schema | None = Field(default=None, alias="schema")


class ResponseFormat(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def spec(self) -> GrammarSpec | None:
        """Raises BadRequest."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return GrammarSpec.any_object("response_format")
        if self.json_schema is None or self.json_schema.schema_ is None:
            name = "response_format.json_schema" + ("" if self.json_schema is None else ".schema")
            raise BadRequest(f"{name} is missing.", param=name, code="missing_parameter")
        return GrammarSpec.json(self.json_schema.schema_, "response_format.json_schema.schema")


class StructuredOutputs(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    json_: Schema | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: object = None


def read_form(
    response_format: ResponseFormat | None,
    structured: StructuredOutputs | None,
    guided: StructuredOutputs,
) -> GrammarSpec | None:
    """The one form that is asked for, or None. Raises BadRequest if there are several.

    ``guided`` holds the fields that begin with ``guided_``.
    """
    found = [] if response_format is None else [response_format.spec()]
    found += _specs(guided, "guided_")
    found += [] if structured is None else _specs(structured, "structured_outputs.")
    asked = [spec for spec in found if spec is not None]
    if len(asked) > 1:
        raise BadRequest(
            f"{asked[0].param} and {asked[1].param} both say what form the answer has.",
            param=asked[1].param,
            hint="Leave out one of the two.",
        )
    return asked[0] if asked else None


def _specs(given: StructuredOutputs, prefix: str) -> list[GrammarSpec | None]:
    if given.structural_tag is not None:
        raise UnsupportedParameter(
            f"{prefix}structural_tag is not supported by this endpoint.",
            param=f"{prefix}structural_tag",
            hint="Use tools, or a grammar.",
        )
    found: list[GrammarSpec | None] = []
    if given.json_ is not None:
        found.append(GrammarSpec.json(given.json_, f"{prefix}json"))
    if given.regex is not None:
        found.append(GrammarSpec(Form.REGEX, given.regex, f"{prefix}regex"))
    if given.choice is not None:
        found.append(GrammarSpec.choice(given.choice, f"{prefix}choice"))
    if given.grammar is not None:
        found.append(GrammarSpec(Form.GRAMMAR, given.grammar, f"{prefix}grammar"))
    if given.json_object:
        found.append(GrammarSpec.any_object(f"{prefix}json_object"))
    return found
