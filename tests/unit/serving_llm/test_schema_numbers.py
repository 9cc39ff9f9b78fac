"""Numbers of a schema: an answer has exactly those that it allows, or the schema is refused."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction

import jsonschema
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ridgeline_backends.engine import Constraint
from ridgeline_service.serving.llm.errors import BadRequest, GrammarTooComplex
from ridgeline_service.serving.llm.grammar import Form, GrammarCompiler, GrammarSpec
from ridgeline_service.serving.llm.text.tokenizer import TextTokenizer

EOS = 256
INT64 = 2**63
Schema = dict[str, object]


class Held:
    """What texts a schema's grammar allows."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._grammars = GrammarCompiler(tokenizer.to_json, [EOS])

    def compile(self, schema: Schema) -> Constraint:
        return self._grammars.compile(GrammarSpec.json(schema, "guided_json")).start()

    def allows(self, schema: Schema, text: str) -> bool:
        """Whether the text is a whole answer. Raises BadRequest as the endpoint would."""
        return self.follows(GrammarSpec.json(schema, "guided_json"), text)

    def follows(self, spec: GrammarSpec, text: str) -> bool:
        """The same of any form."""
        way = self._grammars.compile(spec).start()
        for token in self._tokenizer.encode(text, add_special_tokens=False):
            if way.finished or not _allowed(way, token):
                return False
            way.accept(token)
        return way.finished or _allowed(way, EOS)

    def says(self, schema: Schema, value: Decimal) -> bool:
        """Whether the number is an answer in any spelling: some need zeros at their end."""
        return any(self.allows(schema, f"{value:.{places}f}") for places in _places(value))


def _places(value: Decimal) -> range:
    return range(max(0, -int(value.normalize().as_tuple().exponent)), 8)


def _allowed(way: Constraint, token: int) -> bool:
    mask = way.mask()
    if way.error:
        raise GrammarTooComplex(way.error)
    return bool(mask[token // 8] >> token % 8 & 1)


@pytest.fixture(scope="module")
def held(tokenizer: TextTokenizer) -> Held:
    return Held(tokenizer)


def near(edge: int) -> st.SearchStrategy[int]:
    return st.integers(edge - 3, edge + 3)


EDGES = [
    0,
    2**53,
    -(2**53),
    10**16,
    INT64,
    -INT64,
    1024 - INT64,
    2**64,
    2**32,
    10**15,
    10**18,
    -(10**18),
]
INTEGERS = st.one_of(
    st.integers(-100, 100),
    st.sampled_from(EDGES).flatmap(near),
    st.integers(-(10**19), 10**19),
    st.integers(-(10**40), 10**40),
)
BOUNDS = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]


def agrees(held: Held, schema: Schema, values: list[int]) -> None:
    """Of each value the grammar says what the schema says, unless the schema is refused; but for
    whole numbers next to a large bound."""
    judge = jsonschema.Draft202012Validator(schema)
    for value in values:
        try:
            allowed = held.allows(schema, str(value))
        except BadRequest:
            return
        if allowed or not _lost(schema, value):
            assert allowed == judge.is_valid(value), (schema, value)


def _lost(schema: Schema, value: int) -> bool:
    """Whether a large bound may take this number along: from there to the next double, and what
    is beyond 64 bits."""
    large = [b for key in BOUNDS if isinstance(b := schema.get(key), int) and abs(b) >= 2**53]
    near = any(abs(value - bound) <= math.ulp(float(bound)) for bound in large)
    return near or (bool(large) and not 1024 - INT64 <= value < INT64)


@settings(deadline=None, max_examples=150)
@given(value=INTEGERS, typed=st.booleans(), listed=st.booleans())
@example(value=1234567890123456789, typed=False, listed=True)
@example(value=10**30, typed=True, listed=False)
def test_a_given_whole_number_is_said_or_refused(
    held: Held, value: int, typed: bool, listed: bool
) -> None:
    schema: Schema = {"enum": [value, "x"]} if listed else {"const": value}
    if typed:
        schema["type"] = ["integer", "string"]
    near_it = [value + off for off in (-512, -2, -1, 0, 1, 2, 512)]
    agrees(held, schema, [*near_it, int(float(value)), INT64 - 1])


@settings(deadline=None, max_examples=300)
@given(
    bounds=st.dictionaries(st.sampled_from(BOUNDS), INTEGERS, min_size=1, max_size=2),
    kind=st.sampled_from(["integer", "number"]),
    step=st.none() | st.integers(1, 50) | INTEGERS.map(abs),
    probes=st.lists(INTEGERS, max_size=3),
)
@example({"minimum": -INT64 + 1, "maximum": -INT64 + 2}, "integer", None, [])
@example({"minimum": 2**53 + 1, "maximum": 2**53 + 1}, "integer", None, [])
@example({"exclusiveMinimum": 2**53}, "integer", None, [])
@example({"minimum": 10**30}, "integer", None, [])
@example({"minimum": 2**53 + 2, "maximum": 2**62}, "number", None, [])
@example({"minimum": 5}, "integer", 2**32 - 1, [])
@example({"maximum": 9999999999999999}, "integer", None, [9999999999999998, 10**16])
@example({"maximum": 2**64 - 1, "minimum": 0}, "integer", None, [INT64 - 1])
@example({"maximum": 10**18}, "number", None, [])
@example({"exclusiveMinimum": -INT64 - 1, "exclusiveMaximum": INT64}, "integer", None, [INT64 - 1])
@example({"minimum": 2**53 + 1}, "integer", 1_000_000, [10**16])
def test_bounds_of_whole_numbers_are_held_or_refused(
    held: Held, bounds: dict[str, int], kind: str, step: int | None, probes: list[int]
) -> None:
    assume(bounds.get("minimum") != -INT64)  # see the next test
    schema: Schema = {"type": kind, **bounds}
    if step is not None:
        schema["multipleOf"] = step or 1
    for bound in (*bounds.values(), *(bound * -1 for bound in bounds.values())):
        probes += [bound + off for off in (-1024, -1, 0, 1, 1024)]
    probes += [probe - probe % (step or 1) for probe in probes]
    agrees(held, schema, [probe for probe in probes if probe != 0])


def test_whole_numbers_of_64_bits_lose_their_lowest_alone(held: Held) -> None:
    """As pydantic and OpenAPI write them, whose lowest 1024 no grammar begins with."""
    schema: Schema = {"type": "integer", "minimum": -INT64, "maximum": INT64 - 1}
    for value in (1024 - INT64, 1025 - INT64, -1, 0, 2**53 + 1, INT64 - 2, INT64 - 1):
        assert held.allows(schema, str(value))
    for value in (1023 - INT64, -INT64, -INT64 - 1, INT64, -(10**25), 10**25):
        assert not held.allows(schema, str(value))
    inner = {"properties": {"const": schema}, "required": ["const"], "additionalProperties": False}
    assert held.allows(inner, '{"const": -9223372036854774784}')


@settings(deadline=None, max_examples=200)
@given(data=st.data(), least=st.none() | st.decimals(-50, 50, places=6), open_=st.booleans())
def test_bounds_of_fractions_are_held(
    held: Held, data: st.DataObject, least: Decimal | None, open_: bool
) -> None:
    low = st.decimals(least or -50, 60, places=6)
    most = data.draw(st.none() | low)
    schema: Schema = {"type": "number"}
    if least is not None:
        schema["exclusiveMinimum" if open_ else "minimum"] = float(least)
    if most is not None:
        schema["exclusiveMaximum" if open_ else "maximum"] = float(most)
    try:
        held.compile(schema)
    except BadRequest:
        assert least == most or None not in (least, most)
        return
    bits = [Decimal(0), Decimal("0.000001"), Decimal("-0.000001"), Decimal(1), Decimal("-0.1")]
    for edge in (least, most, Decimal(3), data.draw(st.decimals(-70, 70, places=3))):
        for value in [(edge or Decimal(0)) + bit for bit in bits]:
            if value == 0:
                continue
            inside = least is None or least < value or (value == least and not open_)
            inside &= most is None or value < most or (value == most and not open_)
            assert held.says(schema, value) == inside, (schema, value)


@settings(deadline=None, max_examples=200)
@given(
    step=st.decimals("0.000001", 5000, places=6) | st.decimals("0.01", 100, places=2),
    times=st.integers(1, 10**7),
    off=st.integers(1, 10**6),
)
def test_multiples_of_fractions_are_held_or_refused(
    held: Held, step: Decimal, times: int, off: int
) -> None:
    schema: Schema = {"type": "number", "multipleOf": float(step)}
    for value in (step * times, step * times + Decimal(off) / 10**6):
        try:
            allowed = held.says(schema, value)
        except BadRequest:
            return
        assert allowed == (Fraction(value) % Fraction(step) == 0), (schema, value)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"properties": {"id": {"enum": [1, 1234567890123456789]}}}, "properties.id.enum[1]"),
        ({"$ref": "#b", "$defs": {"a": {"$anchor": "b", "const": 2**70}}}, "$defs.a.const"),
        ({"$ref": "#/x/y", "x": {"y": {"const": {"a": [2**70]}}}}, "x.y.const.a[0]"),
        ({"items": {"type": "integer", "minimum": -(10**25)}}, "items.minimum"),
        ({"type": "integer", "maximum": 2**64}, "maximum"),
        ({"type": "integer", "minimum": 10**18}, "minimum"),
        ({"type": "number", "maximum": 1e300}, "maximum"),
        ({"type": "number", "minimum": 1e-300}, "minimum"),
        ({"type": "number", "multipleOf": 0.07}, "multipleOf"),
        ({"type": "integer", "multipleOf": 2**32 - 1}, "multipleOf"),
        ({"type": "string", "maxLength": 2**32}, "maxLength"),
        (
            {"type": "integer", "allOf": [{"multipleOf": 65537}, {"multipleOf": 65539}]},
            "allOf[0].multipleOf, allOf[1].multipleOf",
        ),
    ],
)
def test_what_cannot_be_held_to_is_refused_by_its_place(
    held: Held, schema: Schema, place: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        held.compile(schema)
    assert caught.value.message.startswith(f"guided_json: {place}: ")
    assert caught.value.param == "guided_json"


def test_a_large_number_that_constrains_nothing_is_no_matter(held: Held) -> None:
    schema: Schema = {"type": "integer", "default": 2**70, "examples": [2**80], "maximum": 7}
    assert held.allows(schema, "7")


def test_a_schema_within_a_grammar_is_checked_too(tokenizer: TextTokenizer) -> None:
    schema = {"type": "integer", "minimum": -INT64 - 1, "maximum": 2 - INT64}
    spec = GrammarSpec(Form.GRAMMAR, f"start: %json {json.dumps(schema)}", "guided_grammar")
    with pytest.raises(BadRequest, match="guided_grammar: %json minimum: -9223372036854775809"):
        GrammarCompiler(tokenizer.to_json, [EOS]).compile(spec)


def test_the_range_of_64_bits_is_held_to_however_it_is_said(held: Held) -> None:
    said: list[Schema] = [
        {"minimum": -INT64, "maximum": INT64 - 1},
        {"exclusiveMinimum": -INT64 - 1, "exclusiveMaximum": INT64},
        {"minimum": -9.223372036854775808e18, "maximum": 9.223372036854775807e18},
    ]
    for bounds in said:
        schema = {"type": "integer", **bounds}
        spec = GrammarSpec(Form.GRAMMAR, f"start: %json {json.dumps(schema)}", "guided_grammar")
        for value in (1024 - INT64, -1, 2**53 + 1, INT64 - 1):
            assert held.allows(schema, str(value))
            assert held.follows(spec, str(value))
        assert not held.allows(schema, str(INT64))
        assert not held.follows(spec, str(INT64))


def test_whole_numbers_of_64_bits_without_a_sign_end_where_those_with_one_do(held: Held) -> None:
    schema: Schema = {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}
    assert held.allows(schema, str(INT64 - 1))
    assert not held.allows(schema, str(INT64))


def test_a_whole_bound_may_be_spelled_as_a_fraction(held: Held) -> None:
    """As pydantic writes those that are given as floats."""
    schema: Schema = {"type": "integer", "minimum": 0.0, "maximum": 1e18}
    assert held.allows(schema, str(10**18))
    assert not held.allows(schema, str(10**18 + 1))


@settings(deadline=None, max_examples=300)
@given(number=st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1000, 1000))
@example(-1.5e40)
@example(9007199254740991.0)
@example(0.30000000000000004)
def test_a_given_double_is_said_or_refused(held: Held, number: float) -> None:
    assume(number != 0)
    exact = Decimal(str(number)).normalize()
    try:
        allowed = any(held.allows({"const": number}, f"{exact:f}{end}") for end in ("", ".0"))
    except BadRequest:
        return
    assert allowed
    other = Decimal(str(math.nextafter(number, 0)))
    assert not held.allows({"const": number}, f"{other:f}")


@pytest.mark.parametrize("number", [6.02214076e23, 1e22, -6.02e23])
def test_a_given_fraction_is_said_however_large(held: Held, number: float) -> None:
    text = f"{Decimal(str(number)):f}"
    for schema in ({"const": number}, {"enum": ["x", number]}, {"type": "number", "const": number}):
        assert held.allows(schema, text)
        assert not held.allows(schema, text + "0")
    for schema in (
        {"type": "integer", "const": number},
        {"allOf": [{"type": "integer"}, {"const": number}]},
    ):
        with pytest.raises(BadRequest, match="cannot be held to exactly"):
            held.compile(schema)


@pytest.mark.parametrize(
    "steps", [(0.01, 1000), (256, 1000), (3600, 1024), (60, 1000, 7), (0.001, 1000)]
)
def test_steps_of_independent_fields_do_not_meet(held: Held, steps: tuple[float, ...]) -> None:
    fields = {f"f{at}": {"type": "number", "multipleOf": step} for at, step in enumerate(steps)}
    schema: Schema = {
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }
    right: dict[str, float] = {name: step * 3 for name, step in zip(fields, steps, strict=True)}
    text = "{" + ", ".join(f'"{name}": {value:g}' for name, value in right.items()) + "}"
    assert held.allows(schema, text)
    wrong = text.replace(f"{steps[-1] * 3:g}}}", f"{steps[-1] * 3 + 1:g}}}")
    assert not held.allows(schema, wrong)


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"multipleOf": 65537}, {"multipleOf": 65539}]},
        {"$ref": "#/$defs/a", "multipleOf": 65537, "$defs": {"a": {"multipleOf": 65539}}},
        {"anyOf": [{"multipleOf": 65537}, {"type": "null"}], "multipleOf": 65539},
        {
            "allOf": [
                {"properties": {"a": {"items": {"multipleOf": 65537}}}},
                {"$ref": "#/x"},
            ],
            "x": {"properties": {"a": {"items": {"multipleOf": 65539}}}},
        },
        {
            "properties": {"a": {"multipleOf": 65537}},
            "patternProperties": {"a": {"multipleOf": 65539}},
        },
    ],
)
def test_steps_that_meet_in_one_value_are_counted_together(held: Held, schema: Schema) -> None:
    with pytest.raises(BadRequest, match="these cannot be held to exactly in one schema"):
        held.compile(schema)


@pytest.mark.parametrize("step", [100_001, 131_072, 1_000_000, 99 * 10**6])
def test_round_steps_are_held_to_however_large(held: Held, step: int) -> None:
    schema: Schema = {"type": "integer", "multipleOf": step}
    for times in (1, 7, 12345):
        assert held.allows(schema, str(step * times))
        assert not held.allows(schema, str(step * times + 1))
        assert not held.allows(schema, str(step * times + 10))


LARGE = {"minimum": 2**60, "multipleOf": 2**40, "const": 2**70}


@pytest.mark.parametrize(
    "schema",
    [
        {"const": {"minimum": 2**60}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer", "default": LARGE}}},
        {"enum": [{"minimum": 2**60}]},
        {"type": "integer", "default": LARGE},
        {"type": "integer", "examples": [LARGE]},
        {"properties": {"const": {"type": "integer", "default": LARGE}}},
    ],
)
def test_data_in_a_schema_is_no_schema(held: Held, schema: Schema) -> None:
    held.compile(schema)


def test_a_schema_in_a_comment_of_a_grammar_is_none(tokenizer: TextTokenizer) -> None:
    source = '// %json {"const": 1180591620717411303425}\nstart: "a"  # %json {"const": 1e30}'
    spec = GrammarSpec(Form.GRAMMAR, source, "guided_grammar")
    GrammarCompiler(tokenizer.to_json, [EOS]).compile(spec)
