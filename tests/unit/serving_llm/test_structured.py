"""Structured output end to end in one process: requests to grammars, grammars to engine, to text.

The model has random weights, so that nothing but the grammar makes an answer valid.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from ridgeline_backends.base import (
    ModelRunner,
    PagedLayout,
    RunnerLimits,
    Step,
    StepResult,
)
from ridgeline_backends.device_time import DeviceTime
from ridgeline_backends.engine import EngineOutput, FinishReason, LLMEngine, SamplingParams
from ridgeline_backends.sampling import results, wanted_rows
from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.grammar import Form, GrammarCompiler, GrammarSpec
from ridgeline_service.serving.llm.schemas import with_objects
from ridgeline_service.serving.llm.text.tokenizer import TextTokenizer

EOS = 256
VOCABULARY = 264
TOGETHER = 10
EXAMPLES = int(os.environ.get("RIDGELINE_SCHEMA_EXAMPLES", "500"))
LONGEST = 160


class RandomModel(ModelRunner):
    """The next token's logits are a random row for the token before it: a model of one matrix.

    Its vocabulary is larger than the tokenizer's, as models' often are.
    """

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(7)
        self._rows = torch.randn(VOCABULARY, VOCABULARY, generator=generator) * 2

    @property
    def limits(self) -> RunnerLimits:
        return RunnerLimits(
            max_model_len=512,
            max_tokens=512,
            max_sequences=32,
            kv_layout=PagedLayout(block_size=16, num_blocks=1024),
        )

    @property
    def vocab_size(self) -> int:
        return VOCABULARY

    @property
    def eos_token_ids(self) -> frozenset[int]:
        return frozenset({EOS})

    def execute(self, step: Step) -> StepResult:
        flat = torch.tensor([token for chunk in step.chunks for token in chunk.tokens])
        found = results(step, self._rows[flat[wanted_rows(step)]])
        return StepResult(tokens=found.tokens, device_time=DeviceTime(seconds=0.0))


class Model:
    """What a replica has of a model, without its server."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self.grammars = GrammarCompiler(self.tokenizer.to_json, [EOS])
        self.engine = LLMEngine(RandomModel(), max_waiting=64)

    def answers(
        self, specs: list[GrammarSpec], max_tokens: int = LONGEST
    ) -> list[tuple[str, FinishReason]]:
        """One answer of each form, all generated together."""
        tokens: list[list[int]] = [[] for _ in specs]
        finishes: list[FinishReason | None] = [None] * len(specs)

        def sink(place: int, output: EngineOutput) -> None:
            assert output.error is None, output.error
            tokens[place].extend(output.token_ids)
            finishes[place] = output.finish_reason

        for place, spec in enumerate(specs):
            params = SamplingParams(
                max_tokens=max_tokens, seed=place, grammar=self.grammars.compile(spec)
            )
            self.engine.submit(
                str(place), [5, 6, 7], params, lambda output, at=place: sink(at, output)
            )
        while self.engine.step():
            pass
        self.engine.check_integrity()
        texts = [self.tokenizer.decode(one) for one in tokens]
        return [(text, finish) for text, finish in zip(texts, finishes, strict=True) if finish]


@pytest.fixture(scope="module")
def model(tokenizer: TextTokenizer) -> Iterator[Model]:
    made = Model(tokenizer)
    yield made
    made.engine.stop()


# Dates and times are written as their grammar has it; that a 31st or a leap second exists in that
# month or minute is more than a grammar says.
CHECKED = jsonschema.FormatChecker(["uuid", "ipv4", "email"])
NAMES = st.sampled_from(["a", "b c", "naïve", 'qu"ote', "x-y", "ключ", "$id2"])
SHORT = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=4)


@st.composite
def strings(draw: st.DrawFn) -> dict[str, object]:
    kind = draw(st.sampled_from(["length", "pattern", "format", "free"]))
    if kind == "length":
        least = draw(st.integers(0, 4))
        return {"type": "string", "minLength": least, "maxLength": least + draw(st.integers(0, 5))}
    if kind == "pattern":
        patterns = ["^[a-z]{1,4}$", "^(yes|no)$", "^\\d{2}-\\d{2}$", "^[A-Z][a-z]*$"]
        return {"type": "string", "pattern": draw(st.sampled_from(patterns))}
    if kind == "format":
        formats = ["date", "time", "date-time", "uuid", "ipv4", "email"]
        return {"type": "string", "format": draw(st.sampled_from(formats))}
    return {"type": "string"}


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, object]:
    kind = draw(st.sampled_from(["integer", "number"]))
    made: dict[str, object] = {"type": kind}
    least = draw(st.integers(-100, 100))
    if draw(st.booleans()):
        made[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = least
    if draw(st.booleans()):
        made[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = least + draw(
            st.integers(3, 1000)
        )
    if kind == "integer" and draw(st.integers(0, 3)) == 0:
        made["multipleOf"] = draw(st.integers(2, 3))
    return made


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, object]]) -> dict[str, object]:
    least = draw(st.integers(0, 2))
    made: dict[str, object] = {
        "type": "array",
        "minItems": least,
        "maxItems": least + draw(st.integers(0, 2)),
    }
    if draw(st.booleans()):
        made["prefixItems"] = draw(st.lists(inner, max_size=2))
    made["items"] = draw(inner)
    return made


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, object]]) -> dict[str, object]:
    properties = draw(st.dictionaries(NAMES, inner, max_size=3))
    made: dict[str, object] = {"type": "object", "properties": properties}
    if properties:
        made["required"] = draw(st.lists(st.sampled_from(list(properties)), unique=True))
    made["additionalProperties"] = draw(st.one_of(st.just(False), inner))
    return made


def schemas() -> st.SearchStrategy[dict[str, object]]:
    leaves = st.one_of(
        strings(),
        numbers(),
        st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null"]}]),
        st.lists(st.one_of(SHORT, st.integers(-9, 9), st.none()), min_size=1, max_size=3).map(
            lambda values: {"enum": values}
        ),
        SHORT.map(lambda value: {"const": value}),
        st.just({"$ref": "#/$defs/shared"}),
    )

    def deeper(inner: st.SearchStrategy[dict[str, object]]) -> st.SearchStrategy[dict[str, object]]:
        either = st.lists(inner, min_size=1, max_size=3).map(lambda made: {"anyOf": made})
        return st.one_of(objects(inner), arrays(inner), either)

    return st.recursive(leaves, deeper, max_leaves=6).map(
        lambda schema: {**schema, "$defs": {"shared": {"type": "string", "maxLength": 3}}}
    )


def check(schema: dict[str, object], text: str, finish: FinishReason) -> None:
    if finish is FinishReason.LENGTH:
        # Cut off: what is there begins a JSON text.
        from_json(text, allow_partial="trailing-strings")
        return
    assert finish is FinishReason.STOP
    jsonschema.Draft202012Validator(schema, format_checker=CHECKED).validate(json.loads(text))


@pytest.fixture(scope="module")
def complete() -> Iterator[list[bool]]:
    """Which answers came to their end. Most must, or the test below says little."""
    seen: list[bool] = []
    yield seen
    assert sum(seen) > 0.7 * len(seen)


@settings(
    max_examples=max(1, EXAMPLES // TOGETHER),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(batch=st.lists(schemas(), min_size=TOGETHER, max_size=TOGETHER))
def test_random_weights_answer_every_schema(
    model: Model, complete: list[bool], batch: list[dict[str, object]]
) -> None:
    answers = model.answers([GrammarSpec.json(schema, "schema") for schema in batch])
    for schema, (text, finish) in zip(batch, answers, strict=True):
        check(schema, text, finish)
        complete.append(finish is FinishReason.STOP)


FORMS = [
    (GrammarSpec(Form.REGEX, "[a-c]{3}(x|yz)", "x"), re.compile("[a-c]{3}(x|yz)")),
    (GrammarSpec.choice(["red", 'gr"een', "blau ü"], "x"), re.compile('red|gr"een|blau ü')),
    (GrammarSpec(Form.GRAMMAR, 'start: "1" ("+" "1")~2', "x"), re.compile(r"1\+1\+1")),
    (GrammarSpec(Form.GRAMMAR, 'root ::= "a" ("b" | "c")', "x"), re.compile("a[bc]")),
]


def test_every_language_of_forms_is_followed(model: Model) -> None:
    answers = model.answers([spec for spec, _ in FORMS] * 5)
    for (text, finish), (_, pattern) in zip(answers, FORMS * 5, strict=True):
        assert finish is FinishReason.STOP
        assert pattern.fullmatch(text)


def test_any_object_is_an_object(model: Model) -> None:
    for text, finish in model.answers([GrammarSpec.any_object("x")] * 20, max_tokens=300):
        if finish is FinishReason.STOP:
            assert isinstance(json.loads(text), dict)
        else:
            from_json(text, allow_partial="trailing-strings")


CITY = {
    "properties": {"city": {"enum": ["Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
OSLO = {"city": "Oslo"}


@pytest.mark.parametrize(
    ("schema", "allowed"),
    [
        (CITY, [OSLO]),
        ({"type": "array", "items": CITY, "minItems": 1, "maxItems": 1}, [[OSLO]]),
        ({"$ref": "#/$defs/c", "$defs": {"c": CITY}}, [OSLO]),
        ({"anyOf": [CITY, {"type": "null"}]}, [OSLO, None]),
        ({**CITY, "properties": {"city": {"const": 1}, "type": {"const": 2}}}, [{"city": 1}]),
    ],
)
def test_a_schema_with_properties_and_no_type_is_of_an_object(
    model: Model, schema: dict[str, object], allowed: list[object]
) -> None:
    """As outlines and xgrammar read it, at any depth; a property may be called ``type``."""
    for text, finish in model.answers([GrammarSpec.json(schema, "x")] * 10):
        assert finish is FinishReason.STOP
        said = json.loads(text)
        if isinstance(said, dict):
            said.pop("type", None)
        assert said in allowed


def test_a_schema_that_says_what_it_is_of_stays_as_it_is(model: Model) -> None:
    schema = {"type": ["string"], "properties": {"a": {}}, "maxLength": 2}
    for text, _ in model.answers([GrammarSpec.json(schema, "x")] * 5):
        assert isinstance(json.loads(text), str)


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"type": "null"}], **CITY},
        {"type": ["null"], "allOf": [CITY]},
        {"anyOf": [{"type": "object", "maxProperties": 0}, {"type": "null"}], **CITY},
        {"type": ["object", "null"], "allOf": [CITY]},
        {"type": ["object", "null"], "anyOf": [CITY]},
        {"allOf": [{"type": ["object", "null"]}, CITY]},
        {"oneOf": [{"type": "string"}, {"type": "object"}], **CITY},
        {"allOf": [{"anyOf": [{"type": "null"}, {"type": "object"}]}], **CITY},
        {"not": {"type": "object"}, **CITY},
    ],
)
def test_a_schema_that_says_elsewhere_what_it_is_of_allows_all_of_it(
    schema: dict[str, object],
) -> None:
    made = jsonschema.Draft202012Validator(with_objects(schema))
    for value in (None, "x", {}, OSLO, 5):
        assert made.is_valid(value) == jsonschema.Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    "schema",
    [
        {**CITY, "anyOf": [{"required": ["city"]}, {"maxProperties": 0}]},
        {"allOf": [CITY, CITY]},
        {"allOf": [{"properties": {"city": CITY}, "required": ["city"]}]},
    ],
)
def test_one_that_says_it_nowhere_is_of_an_object(schema: dict[str, object]) -> None:
    made = jsonschema.Draft202012Validator(with_objects(schema))
    assert made.is_valid(OSLO) or made.is_valid({"city": OSLO})
    assert not any(made.is_valid(value) for value in (None, "x", 5))


def test_a_nullable_object_may_be_null(model: Model) -> None:
    [(text, _)] = model.answers([GrammarSpec.json({"type": ["null"], "allOf": [CITY]}, "x")])
    assert json.loads(text) is None


def test_a_schema_nested_too_deeply_is_refused() -> None:
    deep = '{"properties": {"a": ' * 20_000 + "{}" + "}}" * 20_000
    with pytest.raises(BadRequest, match="nested too deeply"):
        GrammarSpec.json(deep, "x")


def chain(kind: Form) -> str:
    """Thousands of definitions, each of which names the next."""
    if kind is Form.GRAMMAR:
        return "start: r0\n" + "\n".join(f"r{at}: r{at + 1}" for at in range(8000)) + '\nr8000: "a"'
    defs: dict[str, object] = {f"{at}": {"$ref": f"#/$defs/{at + 1}"} for at in range(4000)}
    return json.dumps({"$ref": "#/$defs/0", "$defs": {**defs, "4000": {"const": "a"}}})


COMPILE = """
import sys
from pathlib import Path
from ridgeline_service.serving.llm.grammar import Form, GrammarCompiler, GrammarSpec

kind, source, tokenizer = Form(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
GrammarCompiler(tokenizer.read_text, [256]).compile(GrammarSpec(kind, source.read_text(), "x"))
print("compiled")
"""


@pytest.mark.parametrize("kind", [Form.JSON, Form.GRAMMAR])
def test_a_long_chain_of_definitions_does_not_end_the_process(
    model: Model, tmp_path: Path, kind: Form
) -> None:
    source, tokenizer = tmp_path / "source", tmp_path / "tokenizer.json"
    source.write_text(chain(kind))
    tokenizer.write_text(model.tokenizer.to_json())
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, kind.value, source, tokenizer], capture_output=True
    )
    assert (done.returncode, done.stdout) == (0, b"compiled\n"), done.stderr


def test_a_form_without_room_to_compile_it_is_refused(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline_service.serving.llm.grammar._STACK", 2**60)
    with pytest.raises(BadRequest, match="guided_regex: it is too complex"):
        model.grammars.compile(GrammarSpec(Form.REGEX, "never asked", "guided_regex"))


def test_a_complete_form_ends_the_answer_at_once(model: Model) -> None:
    """With its last character, not with a token more that says so."""
    spec = GrammarSpec.choice(["yes"], "x")
    [(text, finish)] = model.answers([spec], max_tokens=3)
    assert (text, finish) == ("yes", FinishReason.STOP)
    [(text, finish)] = model.answers([spec], max_tokens=2)
    assert (text, finish) == ("ye", FinishReason.LENGTH)


def test_a_compiled_form_is_kept(model: Model) -> None:
    spec = GrammarSpec.json({"type": "integer", "minimum": 77}, "x")
    assert model.grammars.compile(spec) is model.grammars.compile(spec)


def test_an_endless_source_is_refused(model: Model) -> None:
    with pytest.raises(BadRequest, match="characters"):
        model.grammars.compile(GrammarSpec(Form.REGEX, "a" * 300_000, "guided_regex"))


def alternatives(objects: int, properties: int) -> dict[str, object]:
    def one(number: int) -> dict[str, object]:
        names = [f"p{number}_{place}" for place in range(properties)]
        return {"type": "object", "properties": {name: {"type": "integer"} for name in names}}

    return {"anyOf": [one(number) for number in range(objects)]}


def test_many_alternatives_are_followed(model: Model) -> None:
    spec = GrammarSpec.json(alternatives(10, 60), "response_format")
    answers = model.answers([spec] * 3)
    assert len(answers) == 3
    assert all(text.startswith("{") for text, _ in answers)


def test_too_many_alternatives_are_refused_before_anything_is_generated(model: Model) -> None:
    with pytest.raises(BadRequest, match="response_format: it is too complex") as caught:
        model.grammars.compile(GrammarSpec.json(alternatives(20, 300), "response_format"))
    assert (caught.value.param, caught.value.code) == ("response_format", "grammar_too_complex")


def test_the_first_mask_is_there_before_a_sequence_needs_it(model: Model) -> None:
    """And is what the grammar says, for every sequence anew."""
    grammar = model.grammars.compile(GrammarSpec(Form.REGEX, "ab|cd", "guided_regex"))
    first, second = grammar.start(), grammar.start()
    assert first.mask() == second.mask()
    [a, b] = model.tokenizer.encode("ab", add_special_tokens=False)
    first.accept(a)
    assert first.mask()[b // 8] >> b % 8 & 1
    assert not second.mask()[b // 8] >> b % 8 & 1
