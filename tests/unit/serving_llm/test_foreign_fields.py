"""What clients bring from other servers: it works, or it is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline_service.serving.llm.invocations import Flavour

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hi"}]}


def given(parameters: dict[str, object]) -> dict[str, object]:
    return {"inputs": "x", "parameters": parameters}


@pytest.mark.parametrize(
    ("parameters", "hint"),
    [
        ({"max_length": 20}, "Use max_new_tokens"),
        ({"min_length": 5}, "Use min_new_tokens"),
        ({"min_tokens": 5}, "Did you mean 'min_new_tokens'?"),
        ({"num_return_sequences": 3}, "set it to 1"),
        ({"no_repeat_ngram_size": 2}, "set it to 0"),
        ({"penalty_alpha": 0.6}, "set it to 0"),
        ({"bad_words_ids": [[1]]}, "set it to []"),
        ({"max_time": 1.5}, "Leave it out"),
        ({"num_beams": 4}, "set it to 1"),
        ({"bad_sequences": ["x"]}, "set it to []"),
        ({"output_formatter": "sse"}, "set it to 'json'"),
        ({"return_tensors": True}, "set it to False"),
        ({"typical_p": 0.95}, "set it to 1"),
        ({"from_nowhere": 1}, "Leave it out"),
    ],
)
@pytest.mark.parametrize("flavour", [Flavour.DJL, Flavour.TGI])
def test_a_parameter_that_would_be_lost_is_refused_by_name(
    of: Any, flavour: Flavour, parameters: dict[str, object], hint: str
) -> None:
    served = of(flavour=flavour)
    reply = served.post("/invocations", given(parameters))

    assert reply.status == 400
    assert f"parameters.{next(iter(parameters))}" in reply.json["error"]
    assert hint in reply.json["error"]
    assert served.engine.submitted == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"num_return_sequences": 1, "num_beams": 1, "no_repeat_ngram_size": 0},
        {"use_cache": True, "pad_token_id": 0, "return_dict_in_generate": False},
        {"typical_p": 1.0, "watermark": False, "best_of": 1, "max_time": None},
        {"from_nowhere": None},
        {"min_length": 1, "bad_sequences": [], "output_formatter": "json", "detokenize": True},
        {"return_tensors": False, "padding": True, "truncation": True},
        {"request_id": "r-1", "user": "u-1"},
        {"early_stopping": True, "length_penalty": 2.0, "num_beams": 1},
    ],
)
def test_a_parameter_that_asks_for_nothing_is_taken(of: Any, parameters: dict[str, object]) -> None:
    assert of().post("/invocations", given(parameters)).status == 200


@pytest.mark.parametrize(
    "parameters",
    [
        {"guided_choice": ["yes"]},
        {"guided_regex": "yes"},
        {"guided_grammar": 'start: "yes"'},
        {"guided_json": {"const": "yes"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": "yes"}}}},
        {"structured_outputs": {"choice": ["yes"]}},
        {"grammar": {"type": "regex", "value": "yes"}},
    ],
)
def test_a_form_may_be_asked_for_among_parameters(of: Any, parameters: dict[str, object]) -> None:
    served = of()
    assert served.post("/invocations", given(parameters)).status == 200
    [seen] = served.engine.submitted
    assert seen.params.grammar is not None


def test_two_forms_among_parameters_are_refused(of: Any) -> None:
    forms = {"guided_regex": "a", "grammar": {"type": "regex", "value": "b"}}
    reply = of().post("/invocations", given(forms))

    assert reply.status == 400
    assert "parameters.guided_regex and parameters.grammar" in reply.json["error"]


def test_the_token_that_ends_a_text_may_be_chosen(of: Any) -> None:
    served = of()
    for parameters in (
        {"ignore_eos": True},
        {"eos_token_id": 7},
        {"eos_token_id": [7, 8], "stop_token_ids": [9]},
        {"eos_token_id": 7, "ignore_eos": True},
    ):
        assert served.post("/invocations", given(parameters)).status == 200

    stops = [set(seen.params.stop_token_ids) for seen in served.engine.submitted]
    assert stops == [set(), {7}, {7, 8, 9}, set()]
    assert all(seen.params.ignore_eos for seen in served.engine.submitted)


def test_biases_among_parameters(of: Any) -> None:
    served = of()
    assert served.post("/invocations", given({"logit_bias": {"5": -3}})).status == 200
    assert served.engine.submitted[0].params.logit_bias == ((5, -3.0),)
    refused = served.post("/invocations", given({"logit_bias": {"999": 1}}))
    assert refused.status == 400
    assert "parameters.logit_bias: '999' is no token" in refused.json["error"]


@pytest.mark.parametrize(
    ("extra", "hint"),
    [
        ({"max_new_tokens": 5}, "Use parameters.max_new_tokens"),
        ({"max_length": 5}, "Use parameters.max_new_tokens"),
        ({"max_tokens": 5}, "Did you mean 'parameters.max_new_tokens'?"),
        ({"no_repeat_ngram_size": 2}, "set it to 0"),
        ({"logprobs": 2}, "Use parameters.details"),
    ],
)
def test_a_parameter_beside_inputs_is_told_its_place(
    of: Any, extra: dict[str, object], hint: str
) -> None:
    served = of()
    reply = served.post("/invocations", {"inputs": "x", **extra})

    assert reply.status == 400
    assert hint in reply.json["error"]
    assert served.engine.submitted == []


def test_fields_beside_inputs_that_ask_for_nothing_are_taken(of: Any) -> None:
    body = {"inputs": "x", "num_beams": 1, "truncation": True, "use_cache": True, "user": "u"}
    assert of().post("/invocations", body).status == 200


@pytest.mark.parametrize("flavour", [Flavour.DJL, Flavour.TGI])
def test_a_stream_may_be_asked_for_among_parameters(of: Any, flavour: Flavour) -> None:
    served = of(flavour=flavour)
    beside = served.post("/invocations", {"inputs": "x", "stream": True})
    within = served.post("/invocations", given({"stream": True}))

    assert within.headers["content-type"] == beside.headers["content-type"]
    assert (within.status, within.body) == (200, beside.body)
    several = served.post("/invocations", {"inputs": ["x"], "parameters": {"stream": True}})
    assert (several.status, "cannot be streamed" in several.json["error"]) == (400, True)


def test_template_variables_of_null_ask_for_nothing(of: Any) -> None:
    served = of()
    for extra in ({}, {"chat_template_kwargs": None}):
        assert served.post(CHAT, {**HELLO, **extra}).status == 200
    first, second = served.engine.submitted
    assert first.prompt == second.prompt


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"logits_processors": ["x"]}, "logits_processors"),
        ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"allowed_token_ids": [1]}, "allowed_token_ids"),
        ({"bad_words": ["x"]}, "bad_words"),
        ({"chat_template": "x"}, "chat_template"),
    ],
)
def test_a_chat_is_told_what_it_cannot_have(of: Any, extra: dict[str, object], param: str) -> None:
    reply = of().post(CHAT, {**HELLO, **extra})
    assert (reply.status, reply.json["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("field", "wrapped"), [("value", False), ("schema", False), ("json_schema", True)]
)
def test_a_json_object_is_held_to_the_schema_that_comes_with_it(
    of: Any, field: str, wrapped: bool
) -> None:
    served = of()

    def chat(schema: dict[str, object]) -> Any:
        form = {"type": "json_object", field: {"schema": schema} if wrapped else schema}
        return served.post(CHAT, {**HELLO, "response_format": form})

    assert chat({"const": 5}).status == 200
    mask = served.engine.submitted[0].params.grammar.start().mask()
    [five, brace] = served.engine._tokenizer.encode("5{", add_special_tokens=False)
    assert [bool(mask[token // 8] >> token % 8 & 1) for token in (five, brace)] == [True, False]
    refused = chat({"type": "cat"})
    assert refused.status == 400
    assert refused.json["error"]["param"].startswith(f"response_format.{field}")


def test_a_chat_may_end_where_its_last_message_breaks_off(of: Any) -> None:
    """The template of these replicas says ``ROLE: CONTENT``, a line each."""
    served = of()
    begun = {"messages": [*HELLO["messages"], {"role": "assistant", "content": " The sky is "}]}
    lengths = []
    for extra in (
        {},
        {"add_generation_prompt": False},
        {"continue_final_message": True},
        {"continue_final_message": True, "add_generation_prompt": False},
    ):
        assert served.post(CHAT, {**begun, **extra}).status == 200
        lengths.append(len(served.engine.submitted[-1].prompt))
    turns = "user: Hi\nassistant:  The sky is \n"
    assert lengths == [len(turns + "assistant: "), len(turns), len(turns) - 1, len(turns) - 1]
    for extra in (
        {"continue_final_message": True, "add_generation_prompt": True},
        {"continue_final_message": True, "messages": [{"role": "assistant", "content": " "}]},
    ):
        reply = served.post(CHAT, {**begun, **extra})
        assert (reply.status, reply.json["error"]["param"]) == (400, "continue_final_message")


def test_tokenize_shows_the_prompt_of_a_continued_message(of: Any) -> None:
    body = {"messages": [{"role": "assistant", "content": "ab"}], "continue_final_message": True}
    assert of().post("/tokenize", body).json["count"] == len("assistant: ab")


def test_the_end_of_a_long_prompt_is_kept(of: Any) -> None:
    served = of()
    letters = served.engine._tokenizer.encode("abcdef", add_special_tokens=False)
    for prompt in ("abcdef", letters):
        body = {"prompt": prompt, "truncate_prompt_tokens": 2, "echo": True, "max_tokens": 1}
        reply = served.post("/v1/completions", body)
        assert reply.json["choices"][0]["text"] == "efH"
        assert served.engine.submitted[-1].prompt == tuple(letters[-2:])
    chat = {**HELLO, "truncate_prompt_tokens": 3}
    assert served.post(CHAT, chat).json["usage"]["prompt_tokens"] == 3
    long = {"prompt": "x" * 5000, "truncate_prompt_tokens": -1}
    assert served.post("/v1/completions", long).json["usage"]["prompt_tokens"] == 60
    for wrong in (0, -2):
        reply = served.post("/v1/completions", {**long, "truncate_prompt_tokens": wrong})
        assert (reply.status, reply.json["error"]["param"]) == (400, "truncate_prompt_tokens")


def test_the_beginning_of_a_long_text_is_embedded(of: Any) -> None:
    served = of("embedding")
    body = {"input": ["x" * 99, "xx"], "truncate_prompt_tokens": 5}
    assert served.post("/v1/embeddings", body).json["usage"]["prompt_tokens"] == 7
    whole = {"input": "x" * 99, "truncate_prompt_tokens": -1}
    assert served.post("/v1/embeddings", whole).json["usage"]["prompt_tokens"] == 32
