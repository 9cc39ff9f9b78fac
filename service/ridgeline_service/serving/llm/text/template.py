"""Chat templates: the Jinja programs that models bring to turn messages into a prompt.

A template comes with a download, so it runs in Jinja's immutable sandbox. Names and options are
those that templates on the hub are written for (the conventions of ``apply_chat_template``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ridgeline_service.serving.llm.errors import BadRequest, LoadFailed

Message = Mapping[str, object]


class ChatTemplate:
    """One compiled template with the special tokens it may mention. ``knows_tools``: it tells the
    model which tools there are.

    Raises LoadFailed for a template that does not compile.
    """

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str],
        *,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: now().strftime(form)
        self.source = source
        try:
            self._template = environment.from_string(source)
            self.knows_tools = "tools" in meta.find_undeclared_variables(environment.parse(source))
        except jinja2.TemplateError as error:
            raise LoadFailed(f"The model's chat template does not compile: {error}") from None
        self._special_tokens = dict(special_tokens)

    def render(
        self,
        messages: Sequence[Message],
        extra: Mapping[str, object],
        tools: Sequence[Mapping[str, object]] | None = None,
    ) -> str:
        """The prompt, ready for the assistant's turn. Raises BadRequest with the template's words.

        ``extra`` are a caller's own template variables.
        """
        variables: dict[str, object] = {
            "documents": None,
            "add_generation_prompt": True,
            **self._special_tokens,
            **extra,
            "tools": [dict(tool) for tool in tools] if tools else None,
            "messages": [dict(message) for message in messages],
        }
        try:
            return self._template.render(variables)
        # A template is a program of the model's; messages of an unforeseen kind make it fail in
        # any way at all, and each way means that these messages do not suit this model.
        except Exception as error:  # noqa: BLE001
            raise BadRequest(
                f"The model's chat template refuses these messages: {error}", param="messages"
            ) from None


class _GenerationBlock(Extension):
    """``{% generation %}`` marks what a model is trained to say; in a prompt it is its content."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> str:
    raise jinja2.TemplateError(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: Jinja's own filter escapes what HTML would misread."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
