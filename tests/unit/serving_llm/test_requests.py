"""What is refused, how clearly, and what is tolerated."""

from __future__ import annotations

from typing import Any

import pytest

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
PROMPT = {"prompt": "x"}


def tool(name: str, parameters: object = None) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def call(name: str, arguments: str) -> dict[str, object]:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (
            "/v1/chat/completions",
            {**CHAT, "tools": [{"type": "function"}]},
            "tools.0.function",
        ),
        ("/v1/chat/completions", {**CHAT, "tools": [tool("a b")]}, "tools.0.function.name"),
        ("/v1/chat/completions", {**CHAT, "tools": [tool("f"), tool("f")]}, "tools"),
        ("/v1/chat/completions", {**CHAT, "tool_choice": "required"}, "tool_choice"),
        (
            "/v1/chat/completions",
            {
                **CHAT,
                "tools": [tool("f")],
                "tool_choice": {"type": "function", "function": {"name": "g"}},
            },
            "tool_choice",
        ),
        (
            "/v1/chat/completions",
            {**CHAT, "tools": [tool("f")], "tool_choice": {"type": "custom", "custom": {}}},
            "tool_choice",
        ),
        ("/v1/chat/completions", {**CHAT, "tools": [tool("f")], "tool_choice": "f"}, "tool_choice"),
        ("/v1/chat/completions", {**CHAT, "detokenize": False}, "detokenize"),
        ("/v1/completions", {"prompt": ["x"] * 257}, "prompt"),
        ("/v1/completions", {"prompt": [[1]] * 257}, "prompt"),
        (
            "/v1/chat/completions",
            {**CHAT, "tools": [tool("f", {"not": {}})], "tool_choice": "required"},
            "tools",
        ),
        (
            "/v1/chat/completions",
            {**CHAT, "response_format": {"type": "json_schema"}},
            "response_format.json_schema",
        ),
        (
            "/v1/chat/completions",
            {**CHAT, "response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        ("/v1/chat/completions", {**CHAT, "response_format": {"type": "yaml"}}, "response_format"),
        ("/v1/chat/completions", {**CHAT, "guided_regex": "a("}, "guided_regex"),
        ("/v1/chat/completions", {**CHAT, "guided_json": "{"}, "guided_json"),
        ("/v1/chat/completions", {**CHAT, "guided_choice": [""]}, "guided_choice"),
        ("/v1/chat/completions", {**CHAT, "guided_grammar": "start: foo"}, "guided_grammar"),
        (
            "/v1/chat/completions",
            {**CHAT, "guided_regex": "a", "structured_outputs": {"choice": ["b"]}},
            "structured_outputs.choice",
        ),
        (
            "/v1/chat/completions",
            {**CHAT, "structured_outputs": {"structural_tag": {}}},
            "structured_outputs.structural_tag",
        ),
        ("/v1/chat/completions", {**CHAT, "frequency_penalty": 2.5}, "frequency_penalty"),
        ("/v1/chat/completions", {**CHAT, "presence_penalty": -3}, "presence_penalty"),
        ("/v1/chat/completions", {**CHAT, "repetition_penalty": 0}, "repetition_penalty"),
        ("/v1/chat/completions", {**CHAT, "min_p": 1.5}, "min_p"),
        ("/v1/chat/completions", {**CHAT, "logit_bias": {"5": 101}}, "logit_bias"),
        ("/v1/chat/completions", {**CHAT, "logit_bias": {"257": 1}}, "logit_bias"),
        ("/v1/chat/completions", {**CHAT, "logit_bias": {"cat": 1}}, "logit_bias"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "assistant", "tool_calls": [call("f", "[1]")]}]},
            "messages.0.tool_calls.0.function.arguments",
        ),
        ("/v1/chat/completions", {**CHAT, "top_logprobs": 2}, "top_logprobs"),
        ("/v1/chat/completions", {**CHAT, "temperature": "hot"}, "temperature"),
        ("/v1/chat/completions", {**CHAT, "temperature": -1}, "temperature"),
        ("/v1/chat/completions", {**CHAT, "top_p": 0}, "top_p"),
        ("/v1/chat/completions", {**CHAT, "n": 0}, "n"),
        ("/v1/chat/completions", {**CHAT, "max_completion_tokens": 0}, "max_completion_tokens"),
        (
            "/v1/chat/completions",
            {**CHAT, "stream_options": {"include_usage": True}},
            "stream_options",
        ),
        ("/v1/chat/completions", {**CHAT, "temperatur": 1}, "temperatur"),
        ("/v1/chat/completions", {**CHAT, "stop": [""]}, "stop"),
        ("/v1/chat/completions", {"messages": []}, "messages"),
        ("/v1/chat/completions", {}, "messages"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "cat", "content": "x"}]},
            "messages.0.role",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content.0.type",
        ),
        ("/v1/completions", {**PROMPT, "suffix": "end"}, "suffix"),
        ("/v1/completions", {**PROMPT, "best_of": 3}, "best_of"),
        ("/v1/completions", {**PROMPT, "max_tokens": 0}, "max_tokens"),
        ("/v1/completions", {**PROMPT, "guided_json": {"uniqueItems": True}}, "guided_json"),
        (
            "/v1/completions",
            {**PROMPT, "guided_json": {"type": "integer", "minimum": -(10**25), "maximum": 0}},
            "guided_json",
        ),
        ("/v1/completions", {**PROMPT, "guided_json": {"const": 2**60 + 1}}, "guided_json"),
        ("/v1/completions", {**PROMPT, "logprobs": 21}, "logprobs"),
        ("/v1/completions", {**PROMPT, "max_tokens": 3, "min_tokens": 4}, "min_tokens"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"prompt": ""}, "prompt"),
        ("/v1/completions", {"prompt": [999]}, "prompt"),
        ("/v1/completions", {"prompt": [-1]}, "prompt"),
        ("/v1/completions", {"prompt": 5}, "prompt"),
        ("/v1/completions", {"prompt": ["a", 5]}, "prompt"),
        ("/v1/embeddings", {"input": "x"}, None),
        ("/invocations", {"messages": []}, "messages"),
    ],
)
def test_a_bad_request_names_the_field(served: Any, path: str, body: object, param: str) -> None:
    reply = served.post(path, body)

    assert reply.status == 400, reply.body
    error = reply.json["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    if param in ("messages.0.content.0.type", "prompt", "response_format", "guided_choice"):
        assert str(error["param"]).startswith(param.split(".")[0])
    else:
        assert error["param"] == param
    assert served.engine.submitted == []


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/completions", {"prompt": "x" * 58, "max_tokens": 30, "min_tokens": 10}, "min_tokens"),
        (
            "/invocations",
            {"inputs": "x" * 58, "parameters": {"max_new_tokens": 30, "min_new_tokens": 10}},
            "parameters.min_new_tokens",
        ),
    ],
)
def test_tokens_that_the_context_has_no_room_for_are_refused_for_that(
    served: Any, path: str, body: object, name: str
) -> None:
    reply = served.post(path, body)

    assert reply.status == 400
    assert f"{name} is 10, but behind the 58 tokens of the prompt" in reply.body.decode()
    assert "context length of 64 leaves room for 6" in reply.body.decode()


def test_a_slip_is_answered_with_the_right_name(served: Any) -> None:
    reply = served.post("/v1/completions", {**PROMPT, "max_token": 3})

    assert "Did you mean 'max_tokens'?" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    "extra",
    [
        {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "n": None},
        {"tools": [tool("f")], "tool_choice": "none", "parallel_tool_calls": True},
        {"user": "me", "store": True, "metadata": {"a": "b"}, "service_tier": "auto"},
        {"something_of_another_server": 5},
        {"stop": None, "seed": None, "stream": None, "temperature": None},
    ],
)
def test_neutral_and_unrelated_fields_are_tolerated(served: Any, extra: dict[str, object]) -> None:
    assert served.post("/v1/chat/completions", {**CHAT, **extra}).status == 200


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[1]", b"null", b'{"prompt": NaN}', b'"\xff"', b'{"prompt": "\\ud800"}'],
)
def test_a_body_that_is_no_json_object(served: Any, raw: bytes) -> None:
    reply = served.call("POST", "/v1/completions", raw)

    assert reply.status == 400
    assert "JSON" in reply.json["error"]["message"]


def test_a_body_of_another_type_is_told_so(served: Any) -> None:
    reply = served.call("POST", "/invocations", b"\x89PNG", content_type="image/png")
    assert reply.status == 400
    assert "content type image/png is not read here" in str(reply.json)
    assert served.call("POST", "/v1/completions", {"prompt": "x"}, content_type="a/b").status == 200


def test_a_long_prompt_is_refused_with_both_numbers_wherever_it_is_tokenised(start: Any) -> None:
    served = start(max_model_len=1000)
    for size in (997, 9000):
        reply = served.post("/v1/completions", {"prompt": "x" * size})
        assert reply.status == 400
        assert f"{size} tokens" in reply.json["error"]["message"]
        assert "at most 996" in reply.json["error"]["message"]


def test_messages_without_a_chat_template(start: Any) -> None:
    reply = start(template=None).post("/v1/chat/completions", CHAT)

    assert reply.status == 400
    assert "no chat template" in reply.json["error"]["message"]
    assert "/v1/completions" in reply.json["error"]["message"]


def test_a_template_that_refuses_says_why(start: Any) -> None:
    served = start(template="{{ raise_exception('Roles must alternate') }}")
    reply = served.post("/v1/chat/completions", CHAT)

    assert reply.status == 400
    assert "Roles must alternate" in reply.json["error"]["message"]


def test_text_parts_are_joined_for_the_template(served: Any) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    reply = served.post("/v1/chat/completions", {"messages": [{"role": "user", "content": parts}]})

    assert reply.status == 200
    [seen] = served.engine.submitted
    assert len(seen.prompt) == len("user: a\nb\nassistant: ")


def test_n_is_all_or_nothing(served: Any, queue_full: Any) -> None:
    served.engine.script.refuse = queue_full
    served.engine.script.refuse_from = 2
    served.engine.script.hold_after = 0
    reply = served.post("/v1/completions", {**PROMPT, "n": 3})

    assert reply.status == 429
    assert reply.headers["retry-after"] == "3"
    assert served.engine.wait_cancelled(2)


def test_more_sequences_than_the_queue_holds_can_never_be_served(served: Any) -> None:
    reply = served.post("/v1/completions", {"prompt": ["x"] * 7, "n": 3})

    assert reply.status == 400
    assert "21 sequences" in reply.json["error"]["message"]
    assert "at most 20 " in reply.json["error"]["message"]


def test_an_embedding_model_refuses_text_and_says_where_to_go(of: Any) -> None:
    served = of("embedding")

    for path, body in (("/v1/chat/completions", CHAT), ("/v1/completions", PROMPT)):
        reply = served.post(path, body)
        assert reply.status == 400
        assert "/v1/embeddings" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["x" * 33]}, "input"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "dimensions": 4}, "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_bad_embedding_requests(of: Any, body: object, param: str) -> None:
    reply = of("embedding").post("/v1/embeddings", body)

    assert reply.status == 400
    assert reply.json["error"]["param"] == param


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "propertyNames": {"pattern": "a"}}, "propertyNames"),
        ({"type": "cat"}, "cat"),
        ({"$ref": "#/$defs/gone"}, "gone"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum (5)"),
        ({"type": "string", "format": "colour"}, "colour"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "use anyOf"),
        (False, "not"),
        ([], "object"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_told_the_keyword(
    served: Any, schema: object, word: str
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    reply = served.post("/v1/chat/completions", {**CHAT, "response_format": form})

    error = reply.json["error"]
    assert reply.status == 400
    assert error["param"].startswith("response_format")
    assert isinstance(schema, list) or word in error["message"]


@pytest.mark.parametrize("body", [{**CHAT, "temperature": 2.5}, {**PROMPT, "temperature": 100}])
def test_a_temperature_above_openais_range_is_told_the_range(served: Any, body: Any) -> None:
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    reply = served.post(path, body)

    assert (reply.status, reply.json["error"]["param"]) == (400, "temperature")
    assert "from 0 to 2" in reply.json["error"]["message"]
    for within in (0, 2):
        assert served.post(path, {**body, "temperature": within}).status == 200


@pytest.mark.parametrize("kind", ["image", "image_url", "input_audio"])
def test_a_picture_or_a_sound_is_told_that_the_model_takes_text(served: Any, kind: str) -> None:
    content = [{"type": "text", "text": "What is this?"}, {"type": kind, kind: {"url": "x"}}]
    reply = served.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}
    )

    error = reply.json["error"]
    assert (reply.status, error["param"]) == (400, "messages.0.content.1.type")
    assert f"takes text only, not {kind!r}" in error["message"]
    assert "Input should be" not in error["message"]


@pytest.mark.parametrize(
    ("kind", "path", "body", "message"),
    [
        ("embedding", "/v1/embeddings", {"input": ["x"] * 2049}, "input: at most 2048, not 2049."),
        ("embedding", "/v1/embeddings", {"input": [[1]] * 2049}, "input: at most 2048, not 2049."),
        ("embedding", "/invocations", {"inputs": ["x"] * 2049}, "inputs: at most 2048, not 2049."),
        ("text", "/v1/completions", {"prompt": ["x"] * 257}, "prompt: at most 256, not 257."),
        ("text", "/v1/completions", {"prompt": "x", "stop": ["."] * 17}, "stop: at most 16"),
        (
            "text",
            "/v1/completions",
            {"prompt": "x", "stop_token_ids": [1] * 65},
            "stop_token_ids: at most 64, not 65.",
        ),
        (
            "rerank",
            "/v1/rerank",
            {"query": "x", "documents": ["x"] * 1001},
            "documents: at most 1000, not 1001.",
        ),
    ],
)
def test_too_many_of_something_are_told_how_many_there_may_be(
    of: Any, kind: str, path: str, body: Any, message: str
) -> None:
    reply = of(kind).post(path, body)
    assert reply.status == 400
    assert message in str(reply.json)


def test_another_fault_of_a_long_list_is_told_as_such(served: Any) -> None:
    reply = served.post("/v1/completions", {"prompt": [1.5] * 300})
    assert "at most" not in reply.json["error"]["message"]
