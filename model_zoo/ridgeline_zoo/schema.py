"""The border where YAML becomes a card: every fault is found at once and named with its line.

Reads text and knows the rules of a card; knows neither where cards lie nor what is done with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from ridgeline.errors import RidgelineError, did_you_mean
from ridgeline_zoo.card import Card, ExamplePayload
from ridgeline_zoo.errors import CardInvalid
from ridgeline_zoo.families import context_length, parameter_count, weight_memory

SCHEMES = ("hf", "s3", "file", "wheel", "seeded")

_Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](-*[a-z0-9])*$", max_length=63)]
_Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
_Version = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
_Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_InstanceType = Annotated[str, StringConstraints(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]
_HubId = Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]

_Path = tuple[str | int, ...]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Payload(_Strict):
    name: _Text
    body: dict[str, JsonValue]
    content_type: _Text = "application/json"


class _CardFile(_Strict):
    id: _Id
    version: _Version
    title: _Text
    description: _Text
    task: Literal["text-generation", "text-embedding", "text-ranking"]
    family: _Text
    image: Literal["llm", "embedding"]
    parameters: Annotated[int, Field(gt=0)]
    context_length: Annotated[int, Field(gt=0)]
    dtype: Literal["bf16", "fp32"]
    source: _Text
    revision: _Text = "main"
    hub_id: _HubId | None = None
    sha256: dict[_Text, _Hash] = Field(default_factory=dict)
    licence: _Text
    gated: bool = False
    eula: Annotated[str, StringConstraints(pattern=r"^https://")] | None = None
    published: bool = True
    keywords: list[_Text] = Field(default_factory=list)
    memory: dict[Literal["bf16", "fp32"], Annotated[int, Field(gt=0)]]
    default_instance_type: _InstanceType
    supported_instance_types: Annotated[list[_InstanceType], Field(min_length=1)]
    backends: Annotated[list[_Text], Field(min_length=1)]
    environment: dict[str, str] = Field(default_factory=dict)
    sampling: dict[Literal["temperature", "top_p", "top_k"], Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict
    )
    config: dict[str, JsonValue]
    example_payloads: Annotated[list[_Payload], Field(min_length=1)]


def parse_card(text: str, origin: str) -> Card:
    """Read one card. ``origin`` names the file in errors.

    Raises CardInvalid with every problem found, each with its line where it has one.
    """
    document, lines = _load_yaml(text, origin)
    try:
        checked = _CardFile.model_validate(document)
    except ValidationError as error:
        problems = [_problem(detail, lines) for detail in error.errors()]
        raise CardInvalid(origin, problems) from error
    problems = [
        _at(lines, (name,), f"{name}: {message}") for name, message in _inconsistencies(checked)
    ]
    if problems:
        raise CardInvalid(origin, problems)
    return _freeze(checked)


def _inconsistencies(card: _CardFile) -> list[tuple[str, str]]:
    """Faults between fields, as (field, message)."""
    found: list[tuple[str, str]] = []
    scheme = urlsplit(card.source).scheme
    if scheme not in SCHEMES:
        found.append(("source", f"unknown scheme {scheme!r}. {did_you_mean(scheme, SCHEMES)}"))
    if scheme == "wheel" and not re.match(r"^wheel://[^/=]+==[^/=]+/.+", card.source):
        found.append(("source", "a wheel source is wheel://NAME==VERSION/path/in/wheel"))
    if card.default_instance_type not in card.supported_instance_types:
        found.append(("default_instance_type", "is not among supported_instance_types"))
    if (card.image == "embedding") != (card.task != "text-generation"):
        found.append(("image", f"{card.image!r} does not serve the task {card.task!r}"))
    if card.gated and card.eula is None:
        found.append(("gated", "a gated model needs eula, the page where its licence is accepted"))
    if card.family != card.config.get("model_type"):
        found.append(("family", "must be the model_type of config"))
    context = context_length(card.config)
    if context is None or card.context_length > context:
        found.append(("context_length", f"config has max_position_embeddings {context!r}"))
    try:
        parameters = parameter_count(card.config)
    except RidgelineError as error:
        found.append(("config", error.message))
    else:
        if card.parameters != parameters:
            found.append(("parameters", f"config gives {parameters}, the card says otherwise"))
        if dict(card.memory) != weight_memory(parameters):
            found.append(("memory", f"config gives {weight_memory(parameters)}"))
    return found


def _freeze(card: _CardFile) -> Card:
    return Card(
        id=card.id,
        version=card.version,
        title=card.title,
        description=card.description,
        task=card.task,
        family=card.family,
        image=card.image,
        parameters=card.parameters,
        context_length=card.context_length,
        dtype=card.dtype,
        source=card.source,
        revision=card.revision,
        hub_id=card.hub_id,
        sha256=MappingProxyType(dict(card.sha256)),
        licence=card.licence,
        gated=card.gated,
        eula=card.eula,
        published=card.published,
        keywords=tuple(card.keywords),
        memory=MappingProxyType({str(dtype): size for dtype, size in card.memory.items()}),
        default_instance_type=card.default_instance_type,
        supported_instance_types=tuple(card.supported_instance_types),
        backends=tuple(card.backends),
        environment=MappingProxyType(dict(card.environment)),
        sampling=MappingProxyType({str(name): value for name, value in card.sampling.items()}),
        config=MappingProxyType(dict(card.config)),
        example_payloads=tuple(
            ExamplePayload(p.name, MappingProxyType(dict(p.body)), p.content_type)
            for p in card.example_payloads
        ),
    )


def _load_yaml(text: str, origin: str) -> tuple[object, Mapping[_Path, int]]:
    """The document and the line (from 1) of every value in it, by path."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise CardInvalid(
            origin, [f"{where}not YAML: {getattr(error, 'problem', error)}"]
        ) from error
    lines: dict[_Path, int] = {}
    duplicates: list[str] = []
    if node is not None:
        _collect_lines(node, (), lines, duplicates)
    if duplicates:
        raise CardInvalid(origin, duplicates)
    return document, lines


def _collect_lines(
    node: yaml.Node, path: _Path, lines: dict[_Path, int], duplicates: list[str]
) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            child = (*path, str(key.value))
            line = key.start_mark.line + 1
            if child in lines:
                duplicates.append(f"line {line}: {_dotted(child)} is given twice")
            lines[child] = line
            _collect_lines(value, child, lines, duplicates)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(value, (*path, index), lines, duplicates)


def _problem(detail: ErrorDetails, lines: Mapping[_Path, int]) -> str:
    path = tuple(detail["loc"])
    name = _dotted(path)
    if detail["type"] == "extra_forbidden":
        model = _Payload if path[:1] == ("example_payloads",) else _CardFile
        known = list(model.model_fields)
        return _at(
            lines, path, f"{name}: unknown field. {did_you_mean(str(path[-1]), known)}".strip()
        )
    if detail["type"] == "missing":
        return _at(lines, path, f"{name}: this field is required")
    if not name:
        return f"a card is a mapping of fields: {detail['msg']}"
    return _at(lines, path, f"{name}: {detail['msg']}, not {detail['input']!r}")


def _at(lines: Mapping[_Path, int], path: _Path, message: str) -> str:
    """The message with the line of the value, or of the nearest thing around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return f"line {lines[path[:length]]}: {message}"
    return message


def _dotted(path: _Path) -> str:
    return ".".join(str(part) for part in path)
