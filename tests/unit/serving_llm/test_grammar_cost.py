"""What a form costs to compile: what would take the replica's memory is refused beforehand."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

from ridgeline_service.serving.llm import grammar as grammar_module
from ridgeline_service.serving.llm.errors import GrammarTooComplex
from ridgeline_service.serving.llm.grammar import Form, GrammarCompiler, GrammarSpec
from ridgeline_service.serving.llm.grammar_cost import MAX_COST, lark_cost, schema_cost
from ridgeline_service.serving.llm.model import Limits, TextModel
from ridgeline_service.serving.llm.text.tokenizer import TextTokenizer

EOS = 256


@pytest.fixture
def compiler(tokenizer: TextTokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer.to_json, [EOS])


def doubled(times: int) -> str:
    """A terminal that is optional parts, as many as a power of two."""
    chain = (f"A{at + 1}: A{at} A{at}\n" for at in range(times))
    return f'start: A{times}\nA0: "a"? "b"?\n' + "".join(chain)


PATTERN = "^" + "a?" * 60_000 + "$"
FEW = [{"type": "string", "pattern": "a?" * 2000} for _ in range(20)]


@pytest.mark.parametrize(
    ("form", "source"),
    [
        (Form.JSON, json.dumps({"type": "string", "pattern": PATTERN})),
        (Form.JSON, json.dumps({"type": "object", "patternProperties": {PATTERN: {}}})),
        (Form.JSON, json.dumps({"$ref": "#/x/y", "x": {"y": {"pattern": PATTERN}}})),
        (Form.JSON, json.dumps({"type": "array", "prefixItems": FEW})),
        (Form.REGEX, "a?" * 60_000),
        (Form.REGEX, "(a|)" * 30_000),
        (Form.REGEX, "a?" * 1000 + "(ab)*" * 40_000),
        (Form.GRAMMAR, f"start: /{'a?' * 60_000}/"),
        (Form.GRAMMAR, "start: A\nA: " + '"a"? ' * 40_000),
        (Form.GRAMMAR, doubled(16)),
        (Form.GRAMMAR, f'start: %json {{"type": "string", "pattern": "{PATTERN}"}}'),
        (Form.GRAMMAR, 'root ::= "x" [a-z]\nx ::= "a" # /\n' + f"y ::= ({'[a]? ' * 20_000})"),
    ],
)
def test_a_form_that_would_take_the_memory_is_refused_uncompiled(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch, form: Form, source: str
) -> None:
    def compiled(work: object, stack: int) -> None:
        raise AssertionError("it was compiled")

    monkeypatch.setattr(grammar_module, "on_own_stack", compiled)
    with pytest.raises(GrammarTooComplex, match="guided: it is too complex") as caught:
        compiler.compile(GrammarSpec(form, source, "guided"))
    assert "optional and repeated parts" in caught.value.message


@pytest.mark.parametrize(
    ("form", "source"),
    [
        (Form.REGEX, "(a{0,1000}){0,1000}"),
        (Form.REGEX, "|".join(f"word{at}" for at in range(20_000))),
        (Form.REGEX, r"(\+\d{1,3} ?)?(\(\d{3}\) ?)?\d{3}[- ]?\d{4}"),
        (Form.JSON, json.dumps({"type": "string", "maxLength": 10_000})),
        (Form.GRAMMAR, 'start: A WS A\nWS: /[ \\t]+/\nA: WS? /a?b*/ | "?"\n%ignore WS'),
        (Form.GRAMMAR, doubled(4)),
    ],
)
def test_others_are_compiled(compiler: GrammarCompiler, form: Form, source: str) -> None:
    compiler.compile(GrammarSpec(form, source, "guided"))


def test_what_real_forms_have_costs_little() -> None:
    dates = r"^(19|20)?\d{2}-(0?[1-9]|1[0-2])-(0?[1-9]|[12]\d|3[01])(T\d{2}:\d{2}(:\d{2})?Z?)?$"
    fields = {f"f{at}": {"type": "string", "pattern": dates} for at in range(1000)}
    assert schema_cost({"type": "object", "properties": fields}) < MAX_COST / 5
    rules = "".join(
        f'r{at}: "(" (A{at} ("," A{at})*)? ")"\nA{at}: /{dates}/\n' for at in range(500)
    )
    assert lark_cost(f"start: r0\n{rules}") < MAX_COST / 5


@pytest.mark.parametrize("part", ['\\"', "/", "a\n", "a(", "\\/", "a[\n"])
def test_the_cost_of_what_is_no_grammar_takes_one_passage(part: str) -> None:
    assert lark_cost("start: A\n" + part * 80_000) < MAX_COST


def test_a_compiled_form_is_known_while_another_is_compiled(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = GrammarSpec.json({"type": "integer"}, "x")
    made = compiler.compile(done)
    begun, go_on = threading.Event(), threading.Event()
    usual = grammar_module.on_own_stack

    def slowly(work: Callable[[], object], stack: int) -> object:
        begun.set()
        go_on.wait(10)
        return usual(work, stack)

    monkeypatch.setattr(grammar_module, "on_own_stack", slowly)
    other = threading.Thread(
        target=lambda: compiler.compile(GrammarSpec.json({"type": "null"}, "x"))
    )
    other.start()
    try:
        assert begun.wait(10)
        assert compiler.known(done) is made
        assert compiler.known(GrammarSpec.json({"type": "null"}, "x")) is None
    finally:
        go_on.set()
        other.join()
    assert compiler.known(GrammarSpec.json({"type": "null"}, "x")) is not None


def test_a_compiled_form_does_not_queue_behind_others(
    compiler: GrammarCompiler, tokenizer: TextTokenizer
) -> None:
    compiling = ThreadPoolExecutor(1)
    model = TextModel(
        name="m",
        tokenizer=tokenizer,
        limits=Limits(max_model_len=8, max_input_tokens=4),
        seams=Mock(),
        engine=Mock(),
        mailbox=Mock(),
        template=None,
        eos_token_ids=frozenset({EOS}),
        grammars=compiler,
        grammar_pool=compiling,
    )
    spec = GrammarSpec.json({"type": "integer"}, "x")
    made = compiler.compile(spec)
    go_on = threading.Event()
    compiling.submit(go_on.wait, 10)
    try:
        assert asyncio.run(asyncio.wait_for(model.grammar(spec), 5)) is made
    finally:
        go_on.set()
        compiling.shutdown()
