"""Structured output: what a request says about the form of its answer, as a grammar for the engine.

JSON schemas, regular expressions, choices and context-free grammars (Lark's or GBNF's notation) are
compiled by llguidance over the model's own tokenizer. A grammar allows a token when the text so far
and the token's bytes begin at least one text of the form. JSON comes without white space beyond one
blank after ``,`` and ``:``, because a model that may write any will at times write nothing else.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import TYPE_CHECKING, Literal

from ridgeline_backends.engine import Constraint, Grammar
from ridgeline_service.serving.llm.errors import BadRequest, GrammarTooComplex
from ridgeline_service.serving.llm.grammar_cost import (
    MAX_COST,
    inline_schemas,
    lark_cost,
    pattern_cost,
    schema_cost,
)
from ridgeline_service.serving.llm.own_stack import on_own_stack
from ridgeline_service.serving.llm.schema_numbers import unheld
from ridgeline_service.serving.llm.schemas import with_objects

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_SOURCE = 2**18
"""Characters of a schema, expression or grammar."""

_KEPT = 64
"""Compiled grammars kept for requests that come again with the same form."""

MAX_ALTERNATIVES = 20_000
"""Ways to go on from one place of a grammar. The library's own bound is a tenth of it, and ten
objects of sixty optional properties have 2,500; so many cost a mask of some ten milliseconds."""

_STACK = 2**23
_STACK_PER_CHARACTER = 2**10
"""Bytes for compiling. The library goes down into each definition from the one that names it, and
where its stack ends the process does. No source was found that takes half as much a character."""

_TRIED = 4
"""Tokens on the way of which a grammar is tried before a sequence gets it. Where there are too many
alternatives they are too many at the first that tells them apart."""

_ADVICE = "; consider making your grammar"
"""The library's, to authors of grammars; few schemas are written as one."""

_ONE_OF = "oneOf is not supported where more than one alternative may hold: use anyOf"

_KEYS = re.compile(r"Unimplemented keys: (\[.*\])")


class Form(StrEnum):
    """The languages in which a form may be given."""

    JSON = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"


_FORMATS: Mapping[Form, Literal["regex", "choice", "grammar"]] = {
    Form.REGEX: "regex",
    Form.CHOICE: "choice",
    Form.GRAMMAR: "grammar",
}


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """What was asked for. ``param`` is the request's field, for complaints."""

    form: Form
    source: str
    param: str

    @classmethod
    def json(cls, schema: object, param: str) -> GrammarSpec:
        """A JSON schema, as an object or as its text. One that has ``properties`` and no type is of
        an object, see `with_objects`. Raises BadRequest."""
        try:
            if isinstance(schema, str):
                schema = json.loads(schema)
            if isinstance(schema, bool):
                schema = {} if schema else {"not": {}}
            if not isinstance(schema, Mapping):
                raise _refused(param, "a JSON schema is an object")
            return cls(Form.JSON, json.dumps(with_objects(schema)), param)
        except ValueError as error:
            raise _refused(param, f"the schema is not valid JSON: {error}") from None
        except RecursionError:
            raise _refused(param, "the schema is nested too deeply") from None

    @classmethod
    def any_object(cls, param: str) -> GrammarSpec:
        return cls(Form.JSON, '{"type": "object"}', param)

    @classmethod
    def choice(cls, choices: Iterable[str], param: str) -> GrammarSpec:
        """One of these texts. Raises BadRequest."""
        listed = list(choices)
        if not listed or "" in listed:
            raise _refused(param, "it takes a list of one or more texts that are not empty")
        return cls(Form.CHOICE, json.dumps(listed), param)


class GrammarCompiler:
    """Compiles for one tokenizer, and remembers. Its methods may be called from any thread."""

    def __init__(self, tokenizer_json: Callable[[], str], eos_token_ids: Iterable[int]) -> None:
        self._tokenizer_json = tokenizer_json
        self._eos = sorted(eos_token_ids)
        self._compiling = Lock()
        self._lock = Lock()
        self._tokenizer: LLTokenizer | None = None
        self._made: OrderedDict[tuple[Form, str], Grammar] = OrderedDict()

    def compile(self, spec: GrammarSpec) -> Grammar:
        """Raises BadRequest naming the keyword or the place at fault. Takes milliseconds, the first
        time on a tokenizer about half a second: not for the event loop."""
        if len(spec.source) > MAX_SOURCE:
            raise _refused(spec.param, f"it has more than {MAX_SOURCE} characters")
        with self._compiling:
            made = self.known(spec)
            if made is None:
                made = self._compile(spec)
                self._keep(spec, made)
            return made

    def known(self, spec: GrammarSpec) -> Grammar | None:
        """The grammar, if it is compiled already. Waits for no other's."""
        key = spec.form, spec.source
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
            return self._made.get(key)

    def _keep(self, spec: GrammarSpec, made: Grammar) -> None:
        with self._lock:
            self._made[spec.form, spec.source] = made
            if len(self._made) > _KEPT:
                self._made.popitem(last=False)

    def _compile(self, spec: GrammarSpec) -> _Compiled:
        # Here and not at the top: a replica that never sees a grammar starts without the library.
        from llguidance import LLMatcher, LLParserLimits, LLTokenizer

        if self._tokenizer is None:
            try:
                self._tokenizer = LLTokenizer(self._tokenizer_json(), eos_token=self._eos)
            except ValueError as error:
                raise BadRequest(
                    f"{spec.param}: this model's tokenizer cannot follow a grammar: {error}.",
                    param=spec.param,
                    code="unsupported_parameter",
                ) from None
        try:
            grammar = _for_library(spec)
        except ValueError as error:
            raise _refused(spec.param, _in_short(str(error))) from None
        limits = LLParserLimits(
            max_items_in_row=MAX_ALTERNATIVES,
            step_max_items=10 * MAX_ALTERNATIVES,
            verbose_errors=False,
        )
        tokenizer = self._tokenizer
        try:
            matcher = on_own_stack(
                lambda: LLMatcher(tokenizer, grammar, log_level=0, limits=limits),
                _STACK + _STACK_PER_CHARACTER * len(spec.source),
            )
        except RuntimeError:
            raise GrammarTooComplex("there is no memory for it", param=spec.param) from None
        if matcher.is_error():
            raise _refused(spec.param, _in_short(matcher.get_error()))
        return _Compiled(matcher, self._tried(matcher.deep_copy(), spec.param))

    def _tried(self, matcher: LLMatcher, param: str) -> bytes:
        """The mask at the beginning, if the grammar can be followed some way from there."""
        first = mask = matcher.compute_bitmask()
        for _ in range(_TRIED):
            token = _lowest(mask, self._eos)
            if token is None or not matcher.consume_token(token):
                break
            mask = matcher.compute_bitmask()
        if matcher.is_error():
            raise GrammarTooComplex(_in_short(matcher.get_error()), param=param)
        return first


class _Compiled:
    """A grammar. Its matcher stays at the beginning; sequences get copies, and ``first``, which is
    the mask there."""

    def __init__(self, matcher: LLMatcher, first: bytes) -> None:
        self._matcher = matcher
        self._first = first

    def start(self) -> Constraint:
        return _Matching(self._matcher.deep_copy(), self._first)


class _Matching:
    """One text on its way through a grammar."""

    def __init__(self, matcher: LLMatcher, first: bytes) -> None:
        self._matcher = matcher
        self._first: bytes | None = first

    def mask(self) -> bytes:
        if self._first is not None:
            return self._first
        # Gives up the interpreter lock while it computes. After an error it leaves the end alone.
        return self._matcher.compute_bitmask()

    def accept(self, token: int) -> None:
        self._first = None
        self._matcher.consume_token(token)

    @property
    def finished(self) -> bool:
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def error(self) -> str | None:
        return _in_short(self._matcher.get_error()) if self._matcher.is_error() else None


def _for_library(spec: GrammarSpec) -> str:
    """The form as the library takes it. Raises BadRequest for one that it would change or could
    not compile, and ValueError for one that it does not understand."""
    from llguidance import LLMatcher, grammar_from

    if spec.form is Form.JSON:
        schema = _held(json.loads(spec.source), spec.param)
        _check_cost(schema_cost(schema), spec.param)
        return LLMatcher.grammar_from_json_schema(
            json.dumps(schema),
            overrides={
                "whitespace_flexible": False,
                "item_separator": ", ",
                "key_separator": ": ",
            },
        )
    if spec.form is Form.REGEX:
        _check_cost(pattern_cost(spec.source), spec.param)
    grammar = grammar_from(_FORMATS[spec.form], spec.source)
    if spec.form is Form.GRAMMAR:
        _check_cost(lark_cost(grammar), spec.param)
        return _with_held_schemas(grammar, spec.param)
    return grammar


def _check_cost(cost: int, param: str) -> None:
    if cost > MAX_COST:
        raise GrammarTooComplex(
            "its expressions have too many optional and repeated parts for their length",
            param=param,
        )


def _held(schema: object, param: str, within: str = "") -> object:
    """The schema, if its numbers can be held to. Raises BadRequest naming the first that cannot."""
    if (why := next(unheld(schema), None)) is not None:
        raise _refused(param, f"{within}{why}")
    return schema


def _with_held_schemas(grammar: str, param: str) -> str:
    """The grammar with each schema in it as `_held` has it."""
    made, end = "", 0
    for start in inline_schemas(grammar):
        try:
            schema, after = json.JSONDecoder().raw_decode(grammar, start)
        except (ValueError, RecursionError):
            continue  # The library says what is wrong with it.
        schema = _held(schema, param, "%json ")
        _check_cost(schema_cost(schema), param)
        made, end = f"{made}{grammar[end:start]}{json.dumps(schema)}", after
    return made + grammar[end:]


def _lowest(mask: bytes, without: Iterable[int]) -> int | None:
    """The first token that a mask allows, one of ``without`` excepted."""
    allowed = bytearray(mask)
    for token in without:
        if token // 8 < len(allowed):
            allowed[token // 8] &= ~(1 << token % 8)
    for place, bits in enumerate(allowed):
        if bits:
            return place * 8 + (bits & -bits).bit_length() - 1
    return None


def _refused(param: str, why: str) -> BadRequest:
    return BadRequest(f"{param}: {why}.", param=param, code="invalid_value")


def _in_short(error: str) -> str:
    """The library's complaint without its drawing of the grammar."""
    keys = _KEYS.search(error)
    if keys is not None:
        names = ", ".join(json.loads(keys[1]))
        return f"keywords that are not supported: {names}"
    if "coerce_one_of" in error:
        return _ONE_OF  # the library names a setting of its own, which no caller has
    lines = [line.strip() for line in error.splitlines()]
    expression = next((line for line in lines if line.startswith("error: ")), None)
    return (expression or lines[0]).removeprefix("error: ").split(_ADVICE)[0].rstrip(".")
