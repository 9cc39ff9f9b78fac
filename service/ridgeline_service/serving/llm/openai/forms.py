"""Which form an answer must have: ``response_format`` and the extra fields of vLLM's.

``guided_json`` and its kin are vLLM's older names, ``structured_outputs`` the newer.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Field

from ridgeline_service.serving.llm.errors import BadRequest, UnsupportedParameter
from ridgeline_service.serving.llm.fields import Body
from ridgeline_service.serving.llm.grammar import Form, GrammarSpec

Schema = str | dict[str, object] | bool
Choices = Annotated[list[str], Len(min_length=1, max_length=1024)]


class JsonSchema(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    name: str | None = None
    # A field of that name would hide one of pydantic's own.
    schema_: Schema | None = Field(default=None, alias="schema")


class ResponseFormat(BaseModel):
    """OpenAI's, where ``json_object`` may bring a schema: TGI's ``value``, llama.cpp's
    ``schema``."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    value: Schema | None = None
    schema_: Schema | None = Field(default=None, alias="schema")

    def spec(self, param: str) -> GrammarSpec | None:
        """``param`` is the field that holds it. Raises BadRequest."""
        if self.type == "text":
            return None
        inner = None if self.json_schema is None else self.json_schema.schema_
        if inner is not None:
            return GrammarSpec.json(inner, f"{param}.json_schema.schema")
        if self.type == "json_schema":
            name = f"{param}.json_schema" + ("" if self.json_schema is None else ".schema")
            raise BadRequest(f"{name} is missing.", param=name, code="missing_parameter")
        for name, schema in (("value", self.value), ("schema", self.schema_)):
            if schema is not None:
                return GrammarSpec.json(schema, f"{param}.{name}")
        return GrammarSpec.any_object(param)


class StructuredOutputs(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    json_: Schema | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: object = None


class FormBody(Body):
    """The fields that say what form an answer has. ``under`` stands before their names."""

    under: ClassVar[str] = ""

    response_format: ResponseFormat | None = None
    guided_json: Schema | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None

    @property
    def form(self) -> GrammarSpec | None:
        """The one form that is asked for, or None. Raises BadRequest, also if there are several."""
        asked = [spec for spec in self._forms() if spec is not None]
        if len(asked) > 1:
            raise BadRequest(
                f"{asked[0].param} and {asked[1].param} both say what form the answer has.",
                param=asked[1].param,
                hint="Leave out one of the two.",
            )
        return asked[0] if asked else None

    def _forms(self) -> list[GrammarSpec | None]:
        guided = StructuredOutputs.model_construct(
            json_=self.guided_json,
            regex=self.guided_regex,
            choice=self.guided_choice,
            grammar=self.guided_grammar,
        )
        found = _specs(guided, f"{self.under}guided_")
        if self.response_format is not None:
            found.insert(0, self.response_format.spec(f"{self.under}response_format"))
        if self.structured_outputs is not None:
            found += _specs(self.structured_outputs, f"{self.under}structured_outputs.")
        return found


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
