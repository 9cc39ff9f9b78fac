"""Tools in a chat, through the official client: what the model is told, and its calls."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import openai
import pytest

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "time"}}
HELLO = [{"role": "user", "content": "Weather?"}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
KNOWS_TOOLS = (
    "{% if tools %}TOOLS:{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.function.name }}:{{ c.function.arguments.city }}{% endfor %}"
    "{% endfor %}<tool_call>"
)


@pytest.fixture
def client(served: Any) -> Any:
    served.engine.max_len = 2000
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{served.port}/v1",
        api_key="unused",
        default_headers={"X-Ridgeline-Token": "replica-secret"},
        max_retries=0,
    ) as made:
        yield made


@pytest.fixture
def served(start: Any) -> Any:
    return start(max_model_len=2000)


def prompt_of(served: Any) -> str:
    tokenizer = served.engine._tokenizer
    ids = served.engine.submitted[-1].prompt
    return b"".join(tokenizer.piece(token_id).data for token_id in ids).decode()


def follow(served: Any, text: str) -> bool:
    """Whether the grammar of the latest sequence takes exactly this text."""
    grammar = served.engine.submitted[-1].params.grammar
    constraint = grammar.start()
    for token in served.engine._tokenizer.encode(text, add_special_tokens=False):
        mask = constraint.mask()
        if not mask[token // 8] >> token % 8 & 1:
            return False
        constraint.accept(token)
    return constraint.finished or bool(constraint.mask()[256 // 8] & 1)


def test_a_model_may_call(client: Any, served: Any) -> None:
    served.engine.script.text = f"I look. {CALL}"
    answer = client.chat.completions.create(model="m", messages=HELLO, tools=[WEATHER, TIME])

    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I look. "
    [call] = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    assert call.id.startswith("call_")
    assert served.engine.submitted[0].params.grammar is None


def test_a_model_may_answer_instead(client: Any, served: Any) -> None:
    answer = client.chat.completions.create(model="m", messages=HELLO, tools=[WEATHER])

    [choice] = answer.choices
    assert choice.finish_reason == "stop"
    assert (choice.message.content, choice.message.tool_calls) == ("Hello there", None)


def test_calls_stream_as_deltas(client: Any, served: Any) -> None:
    served.engine.script.text = f"{CALL}\n{CALL}"
    chunks = list(
        client.chat.completions.create(model="m", messages=HELLO, tools=[WEATHER], stream=True)
    )

    calls: dict[int, list[str]] = {}
    pieces = 0
    for chunk in chunks:
        [choice] = chunk.choices
        assert not choice.delta.content
        for call in choice.delta.tool_calls or []:
            pieces += 1
            if call.index not in calls:
                assert call.id
                assert call.type == "function"
                calls[call.index] = [call.function.name, ""]
            else:
                assert call.id is None
            calls[call.index][1] += call.function.arguments
    assert calls == {0: ["weather", '{"city": "Rome"}'], 1: ["weather", '{"city": "Rome"}']}
    assert pieces > 10, "arguments come as they are written"
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_clients_own_stream_helper_puts_calls_together(client: Any, served: Any) -> None:
    served.engine.script.text = CALL
    with client.chat.completions.stream(model="m", messages=HELLO, tools=[WEATHER]) as stream:
        final = stream.get_final_completion()

    [call] = final.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Rome"}')


@pytest.mark.parametrize("stream", [False, True])
def test_a_named_function_is_formed_by_a_grammar(client: Any, served: Any, stream: bool) -> None:
    served.engine.script.text = '{"city": "Rome"}'
    answer = client.chat.completions.create(
        model="m",
        messages=HELLO,
        tools=[WEATHER, TIME],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        stream=stream,
    )

    if stream:
        deltas = [c.choices[0].delta for c in answer]
        calls = [call for delta in deltas for call in delta.tool_calls or []]
        assert [call.function.name for call in calls if call.id] == ["weather"]
        assert "".join(call.function.arguments for call in calls) == '{"city": "Rome"}'
    else:
        [choice] = answer.choices
        assert choice.finish_reason == "tool_calls"
        [call] = choice.message.tool_calls
        assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Rome"}')
    assert follow(served, '{"city": "Rome"}')
    assert not follow(served, '{"city": 5}')
    assert not follow(served, "Hello")


def test_a_required_call_is_formed_by_a_grammar(client: Any, served: Any) -> None:
    one = '{"name": "weather", "arguments": {"city": "Rome"}}'
    two = f'[{one}, {{"name": "time", "arguments": {{}}}}]'
    served.engine.script.text = two
    request = {"model": "m", "messages": HELLO, "tools": [WEATHER, TIME]}
    answer = client.chat.completions.create(**request, tool_choice="required")

    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert [call.function.name for call in choice.message.tool_calls] == ["weather", "time"]
    jsonschema.validate(
        json.loads(choice.message.tool_calls[0].function.arguments),
        WEATHER["function"]["parameters"],
    )
    assert follow(served, two)
    assert follow(served, f"[{one}]")
    assert not follow(served, "[]")
    assert not follow(served, '[{"name": "weather", "arguments": {}}]')
    assert not follow(served, '[{"name": "cat", "arguments": {}}]')

    client.chat.completions.create(**request, tool_choice="required", parallel_tool_calls=False)
    assert follow(served, f"[{one}]")
    assert not follow(served, two)


def test_one_call_is_shown_where_calls_may_not_be_parallel(client: Any, served: Any) -> None:
    served.engine.script.text = f"{CALL}{CALL}"
    answer = client.chat.completions.create(
        model="m", messages=HELLO, tools=[WEATHER], parallel_tool_calls=False
    )

    assert len(answer.choices[0].message.tool_calls) == 1


def test_references_in_a_tools_schema_are_its_own(client: Any, served: Any) -> None:
    parameters = {
        "properties": {"at": {"$ref": "#/$defs/hour"}},
        "required": ["at"],
        "additionalProperties": False,
        "$defs": {"hour": {"type": "integer", "minimum": 0, "maximum": 23}},
    }
    tool = {"type": "function", "function": {"name": "alarm", "parameters": parameters}}
    client.chat.completions.create(
        model="m", messages=HELLO, tools=[WEATHER, tool], tool_choice="required"
    )

    assert follow(served, '[{"name": "alarm", "arguments": {"at": 7}}]')
    assert not follow(served, '[{"name": "alarm", "arguments": {"at": 24}}]')


def test_a_call_that_the_length_cut_off_says_so(client: Any, served: Any) -> None:
    served.engine.script.text = CALL
    answer = client.chat.completions.create(
        model="m", messages=HELLO, tools=[WEATHER], max_completion_tokens=len(CALL) - 20
    )

    [choice] = answer.choices
    assert choice.finish_reason == "length"
    assert choice.message.tool_calls[0].function.name == "weather"


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ("auto", CALL),
        ("required", '[{"name": "weather", "arguments": {"city": "Rome"}}]'),
        ({"type": "function", "function": {"name": "weather"}}, '{"city": "Rome"}'),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_a_stop_string_cut_off_says_so(
    client: Any, served: Any, choice: Any, text: str, stream: bool
) -> None:
    served.engine.script.text = text
    asked = {"model": "m", "messages": HELLO, "tools": [WEATHER], "tool_choice": choice}
    answer = client.chat.completions.create(**asked, stop=["Rome"], stream=stream)

    last = list(answer)[-1].choices[0] if stream else answer.choices[0]
    assert last.finish_reason == "stop"


def test_a_stop_string_behind_a_call_leaves_it_whole(client: Any, served: Any) -> None:
    served.engine.script.text = f"{CALL} Observation: none"
    answer = client.chat.completions.create(
        model="m", messages=HELLO, tools=[WEATHER], stop=["Observation"]
    )

    assert answer.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("length", "called"),
    [
        (5, None),
        (len('[{"name": "wea'), None),
        (len('[{"name": "weather"'), ""),
        (len('[{"name": "weather", "argum'), ""),
        (len('[{"name": "weather", "arguments": {"ci'), '{"ci'),
    ],
)
def test_a_required_call_that_breaks_off_never_shows_the_grammars_form(
    client: Any, served: Any, length: int, called: str | None, stream: bool
) -> None:
    served.engine.script.text = '[{"name": "weather", "arguments": {"city": "Rome"}}]'
    asked = {
        "model": "m",
        "messages": HELLO,
        "tools": [WEATHER, TIME],
        "tool_choice": "required",
        "max_completion_tokens": length,
    }
    if stream:
        parts = [part.choices[0] for part in client.chat.completions.create(**asked, stream=True)]
        assert {part.delta.content for part in parts} == {None}
        calls = [call for part in parts for call in part.delta.tool_calls or ()]
        reason = parts[-1].finish_reason
    else:
        [choice] = client.chat.completions.create(**asked).choices
        assert choice.message.content is None
        calls, reason = choice.message.tool_calls or [], choice.finish_reason
    assert reason == "length"
    if called is None:
        assert calls == []
    else:
        assert calls[0].function.name == "weather"
        assert "".join(call.function.arguments for call in calls) == called


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {}, "required": [], "description": "None."},
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_a_tool_without_parameters_gets_no_arguments(
    client: Any, served: Any, parameters: object, named: bool
) -> None:
    function = {"name": "now", **({} if parameters is None else {"parameters": parameters})}
    choice = {"type": "function", "function": {"name": "now"}} if named else "required"
    served.engine.script.text = "{}" if named else '[{"name": "now", "arguments": {}}]'
    client.chat.completions.create(
        model="m",
        messages=HELLO,
        tools=[{"type": "function", "function": function}],
        tool_choice=choice,
    )
    form = "%s" if named else '[{"name": "now", "arguments": %s}]'
    assert follow(served, form % "{}")
    assert not follow(served, form % '{"zone": "x"}')


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "additionalProperties": True},
        {"type": "object", "patternProperties": {"^z": {"type": "string"}}},
    ],
)
def test_a_tool_with_parameters_of_any_name_keeps_them(
    client: Any, served: Any, parameters: object
) -> None:
    function = {"name": "now", "parameters": parameters}
    client.chat.completions.create(
        model="m",
        messages=HELLO,
        tools=[{"type": "function", "function": function}],
        tool_choice={"type": "function", "function": {"name": "now"}},
    )
    assert follow(served, '{"zone": "x"}')


HISTORY = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"},
]


def test_a_template_without_tools_is_told_in_words(client: Any, served: Any) -> None:
    system = {"role": "system", "content": "Be kind."}
    client.chat.completions.create(model="m", messages=[system, *HISTORY], tools=[WEATHER])

    prompt = prompt_of(served)
    assert prompt.startswith("system: Be kind.\n\n")
    assert json.dumps(WEATHER) in prompt
    assert f"assistant: {CALL}\n" in prompt
    assert "user: <tool_response>\nSunny\n</tool_response>" in prompt
    client.chat.completions.create(model="m", messages=HISTORY)
    assert prompt_of(served).startswith("user: Weather?")
    assert "<tools>" not in prompt_of(served)


def test_a_template_that_knows_tools_renders_them(start: Any) -> None:
    served = start(template=KNOWS_TOOLS, max_model_len=2000)
    served.engine.max_len = 2000
    served.post("/v1/chat/completions", {"messages": HISTORY, "tools": [WEATHER]})

    prompt = prompt_of(served)
    assert prompt.startswith(f"TOOLS:{json.dumps([WEATHER])}<user>")
    assert "weather:Rome" in prompt
    assert "<tool>Sunny" in prompt
    served.post(
        "/v1/chat/completions", {"messages": HISTORY, "tools": [WEATHER], "tool_choice": "none"}
    )
    assert prompt_of(served).startswith("<user>")
