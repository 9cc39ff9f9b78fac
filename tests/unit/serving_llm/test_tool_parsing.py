"""Tool calls in answers: every family, cut into pieces anywhere."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_service.serving.llm.tools.parsing import Family, ToolParser, family_of

NAMES = frozenset({"weather", "add"})
WEATHER = '{"name": "weather", "arguments": {"city": "Köln \\"}{\\"", "days": [1, 2]}}'
ADD = '{"arguments": {"a": 1}, "name": "add"}'
CITY = {"city": 'Köln "}{"', "days": [1, 2]}

Found = tuple[str, list[tuple[str, object]]]

CASES: list[tuple[Family, str, Found]] = [
    (Family.HERMES, "Just text < and more.", ("Just text < and more.", [])),
    (Family.HERMES, f"<tool_call>\n{WEATHER}\n</tool_call>", ("", [("weather", CITY)])),
    (
        Family.HERMES,
        f"\nI look.\n<tool_call>{WEATHER}</tool_call>\n<tool_call>{ADD}</tool_call>",
        ("\nI look.\n", [("weather", CITY), ("add", {"a": 1})]),
    ),
    (
        Family.HERMES,
        f"<tool_call>{ADD}</tool_call> Done.",
        ("Done.", [("add", {"a": 1})]),
    ),
    (
        Family.HERMES,
        '<tool_call>{"name": "nobody", "arguments": {}}</tool_call>',
        ('<tool_call>{"name": "nobody", "arguments": {}}</tool_call>', []),
    ),
    (Family.HERMES, "<tool_call>words", ("<tool_call>words", [])),
    (Family.HERMES, '<tool_call>\n{"na', ('<tool_call>\n{"na', [])),
    (Family.HERMES, "ends with <tool_", ("ends with <tool_", [])),
    (
        Family.HERMES,
        '<tool_call>{"name": "add", "arguments": "{\\"a\\": 2}"}</tool_call>',
        ("", [("add", {"a": 2})]),
    ),
    (
        Family.MISTRAL,
        f"[TOOL_CALLS] [{WEATHER}, {ADD}]",
        ("", [("weather", CITY), ("add", {"a": 1})]),
    ),
    (Family.MISTRAL, "Plain [TOOL", ("Plain [TOOL", [])),
    (
        Family.LLAMA3,
        '{"name": "add", "parameters": {"a": 1}}; {"name": "add", "parameters": {}}',
        ("", [("add", {"a": 1}), ("add", {})]),
    ),
    (
        Family.LLAMA3,
        '<|python_tag|>{"name": "add", "parameters": {"a": 1}}',
        ("", [("add", {"a": 1})]),
    ),
    (Family.LLAMA3, '{"answer": 42} is it', ('{"answer": 42} is it', [])),
    (Family.LLAMA3, "; no call", ("; no call", [])),
    (
        Family.FORCED,
        f"[{WEATHER}, {ADD}]",
        ("", [("weather", CITY), ("add", {"a": 1})]),
    ),
]


def read(family: Family, pieces: list[str]) -> Found:
    parser = ToolParser(family, NAMES)
    text = ""
    calls: dict[int, list[str]] = {}
    for delta in [*map(parser.push, pieces), parser.flush()]:
        text += delta.text
        for call in delta.calls:
            if call.name is not None:
                assert call.index == len(calls), "calls are numbered as they come"
                calls[call.index] = [call.name, ""]
            calls[call.index][1] += call.arguments
    assert parser.count == len(calls)
    return text, [(name, json.loads(arguments)) for name, arguments in calls.values()]


@pytest.mark.parametrize(("family", "answer", "expected"), CASES)
def test_calls_are_found(family: Family, answer: str, expected: Found) -> None:
    assert read(family, [answer]) == expected


@settings(max_examples=300, deadline=None)
@given(case=st.sampled_from(CASES), cuts=st.lists(st.integers(0, 160), max_size=12))
def test_the_cuts_do_not_matter(case: tuple[Family, str, Found], cuts: list[int]) -> None:
    family, answer, expected = case
    borders = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]
    pieces = [answer[a:b] for a, b in itertools.pairwise(borders)]
    assert read(family, pieces) == expected
    assert read(family, list(answer)) == expected


@settings(max_examples=300, deadline=None)
@given(
    family=st.sampled_from(list(Family)),
    parts=st.lists(
        st.sampled_from(
            ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "{", "}", "[", "]"]
            + ['"name"', ":", '"add"', ",", '"arguments"', " ", "\n", "word", WEATHER, ADD, "\\"]
        ),
        max_size=14,
    ),
)
def test_any_answer_reads_the_same_whole_and_in_characters(
    family: Family, parts: list[str]
) -> None:
    answer = "".join(parts)

    def everything(pieces: list[str]) -> tuple[str, str]:
        parser = ToolParser(family, NAMES)
        deltas = [*map(parser.push, pieces), parser.flush()]
        calls = [call for delta in deltas for call in delta.calls]
        written = "".join(f"#{c.index}{c.name}" if c.name else "" for c in calls)
        return "".join(d.text for d in deltas), written + "".join(c.arguments for c in calls)

    assert everything([answer]) == everything(list(answer))


def test_arguments_come_as_they_are_written() -> None:
    parser = ToolParser(Family.HERMES, NAMES)
    first = parser.push('<tool_call>{"name": "weather", "arguments": {"city": "Kö')
    assert [(call.name, call.arguments) for call in first.calls] == [
        ("weather", ""),
        (None, '{"city": "Kö'),
    ]
    assert parser.push('ln"}').calls[0].arguments == 'ln"}'


@pytest.mark.parametrize(
    ("template", "family"),
    [
        ("... <tool_call> ...", Family.HERMES),
        ("... [TOOL_CALLS] ...", Family.MISTRAL),
        ("... <|python_tag|> ...", Family.LLAMA3),
        ("nothing of tools", Family.HERMES),
    ],
)
def test_a_template_tells_the_family(template: str, family: Family) -> None:
    assert family_of(template) is family
