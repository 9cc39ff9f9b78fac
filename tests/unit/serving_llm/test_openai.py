"""The official `openai` client against a replica: what it parses is what was meant."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import openai
import pytest

from ridgeline_backends.engine import Failure


def client_of(served: Any) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{served.port}/v1",
        api_key="unused",
        default_headers={"X-Ridgeline-Token": "replica-secret"},
        max_retries=0,
    )


@pytest.fixture
def client(served: Any) -> Any:
    with client_of(served) as made:
        yield made


HELLO = [{"role": "user", "content": "Hi"}]


def test_chat(client: Any, served: Any) -> None:
    answer = client.chat.completions.create(model="my-endpoint", messages=HELLO, temperature=0)

    assert answer.object == "chat.completion"
    assert answer.id == "chatcmpl-id2"
    assert answer.created == 1_700_000_000
    assert answer.model == "my-endpoint"
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "Hello there")
    assert (choice.finish_reason, choice.logprobs) == ("stop", None)
    prompt = "user: Hi\nassistant: "
    assert answer.usage.prompt_tokens == len(prompt)
    assert answer.usage.completion_tokens == len("Hello there") + 1
    assert answer.usage.total_tokens == len(prompt) + len("Hello there") + 1
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    [seen] = served.engine.submitted
    assert bytes(served_text(served, seen.prompt)) == prompt.encode()
    assert seen.params.temperature == 0
    assert seen.params.max_tokens == 64 - len(prompt)
    assert 256 in seen.params.stop_token_ids


def served_text(served: Any, ids: Any) -> bytes:
    return b"".join(served.engine._tokenizer.piece(token_id).data for token_id in ids)


def test_chat_stream_with_usage(client: Any) -> None:
    stream = client.chat.completions.create(
        model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}, n=2
    )
    chunks = list(stream)

    texts = ["", ""]
    for chunk in chunks[:-1]:
        assert chunk.object == "chat.completion.chunk"
        assert chunk.usage is None
        [choice] = chunk.choices
        texts[choice.index] += choice.delta.content or ""
    assert texts == ["Hello there"] * 2
    firsts = [next(c for c in chunks if c.choices[0].index == index) for index in (0, 1)]
    assert [first.choices[0].delta.role for first in firsts] == ["assistant"] * 2
    finishes = [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason]
    assert finishes == ["stop", "stop"]
    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    assert usage.completion_tokens == 2 * 12
    assert usage.prompt_tokens == len("user: Hi\nassistant: ")
    assert usage.prompt_tokens_details.cached_tokens == 3


def test_chat_logprobs(client: Any, served: Any) -> None:
    served.engine.script.text = "é!"
    answer = client.chat.completions.create(
        model="m", messages=HELLO, logprobs=True, top_logprobs=2
    )

    [choice] = answer.choices
    assert choice.message.content == "é!"
    content = choice.logprobs.content
    # The end-of-sequence token is no part of the text, nor of its log-probabilities.
    assert [entry.bytes for entry in content] == [[0xC3], [0xA9], [ord("!")]]
    assert content[2].token == "!"
    assert content[2].logprob == -0.5
    assert [top.logprob for top in content[2].top_logprobs] == [-0.5, -1.5]
    assert content[2].top_logprobs[0].token == "!"


def test_completions_of_several_prompts_and_n(client: Any, served: Any) -> None:
    answer = client.completions.create(
        model="m", prompt=["ab", "cde"], n=2, seed=10, max_tokens=5, echo=True
    )

    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices] == ["abHello", "abHello"] + ["cdeHello"] * 2
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert answer.usage.prompt_tokens == 5
    assert answer.usage.completion_tokens == 20
    assert [seen.params.seed for seen in served.engine.submitted] == [10, 11, 10, 11]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("abc", [[65, 66, 67]]), ([65, 66], [[65, 66]]), ([[65], [66, 67]], [[65], [66, 67]])],
)
def test_every_form_of_prompt(
    client: Any, served: Any, prompt: Any, expected: list[list[int]]
) -> None:
    answer = client.completions.create(model="m", prompt=prompt)

    assert len(answer.choices) == len(expected)
    # The test's vocabulary is sorted by its printable stand-ins: "!" is 0.
    shift = served.engine._tokenizer.encode("A", add_special_tokens=False)[0] - 65
    assert {choice.text for choice in answer.choices} == {"Hello there"}
    seen = [list(one.prompt) for one in served.engine.submitted]
    if prompt == "abc":
        assert seen == [[97 + shift, 98 + shift, 99 + shift]]
    else:
        assert seen == expected


def test_completion_logprobs_and_offsets(client: Any, served: Any) -> None:
    served.engine.script.text = "a€b"
    whole = client.completions.create(model="m", prompt="x", logprobs=1, seed=1).choices[0]
    parts = list(client.completions.create(model="m", prompt="x", logprobs=1, seed=1, stream=True))

    made = whole.logprobs
    assert made.tokens == ["a", "bytes:\\xe2", "bytes:\\x82", "bytes:\\xac", "b"]
    assert made.token_logprobs == [-0.5] * 5
    assert made.text_offset[:2] == [0, 1]
    assert made.top_logprobs[0] == {"a": -0.5}
    assert "".join(part.choices[0].text for part in parts) == whole.text == "a€b"
    streamed = [part.choices[0].logprobs for part in parts]
    assert [word for piece in streamed for word in piece.tokens] == made.tokens
    assert [at for piece in streamed for at in piece.text_offset] == made.text_offset


def test_an_echoed_prompt_has_its_log_probabilities(client: Any, served: Any) -> None:
    request = {"model": "m", "prompt": "abc", "echo": True, "logprobs": 1, "max_tokens": 2}
    [whole] = client.completions.create(**request).choices
    parts = [part.choices[0] for part in client.completions.create(**request, stream=True)]

    assert whole.text == "abcHe"
    assert whole.logprobs.tokens == ["a", "b", "c", "H", "e"]
    assert whole.logprobs.token_logprobs == [None, -0.25, -0.25, -0.5, -0.5]
    assert whole.logprobs.top_logprobs == [
        None,
        {"b": -0.25},
        {"c": -0.25},
        {"H": -0.5},
        {"e": -0.5},
    ]
    assert whole.logprobs.text_offset == [0, 1, 2, 3, 4]
    assert "".join(part.text for part in parts) == whole.text
    assert [word for part in parts for word in part.logprobs.tokens] == whole.logprobs.tokens
    assert {seen.params.prompt_logprobs for seen in served.engine.submitted} == {1}


def test_a_prompt_may_be_scored_with_nothing_generated(client: Any, served: Any) -> None:
    request = {"model": "m", "prompt": "abc", "echo": True, "logprobs": 0, "max_tokens": 0}
    whole = client.completions.create(**request)
    *parts, usage = client.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    )

    [choice] = whole.choices
    assert (choice.text, choice.finish_reason) == ("abc", "length")
    assert choice.logprobs.token_logprobs == [None, -0.25, -0.25]
    assert whole.usage.completion_tokens == usage.usage.completion_tokens == 0
    assert "".join(part.choices[0].text for part in parts) == "abc"
    assert parts[-1].choices[0].finish_reason == "length"


def test_completion_stream_with_usage_and_echo(client: Any) -> None:
    chunks = list(
        client.completions.create(
            model="m", prompt="ab", stream=True, echo=True, stream_options={"include_usage": True}
        )
    )

    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "abHello there"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.total_tokens == 2 + 12


def test_stop_strings_cut_the_text_and_cancel_the_sequence(client: Any, served: Any) -> None:
    served.engine.script.text = "one two three four"
    answer = client.completions.create(model="m", prompt="x", stop=["two t", "absent"])

    [choice] = answer.choices
    assert (choice.text, choice.finish_reason) == ("one ", "stop")
    assert answer.usage.completion_tokens == len("one two t")
    assert served.engine.wait_cancelled(1)


def test_a_stream_never_shows_a_part_of_a_stop_string(client: Any, served: Any) -> None:
    served.engine.script.text = "one tw! two"
    chunks = list(client.completions.create(model="m", prompt="x", stop="two", stream=True))

    texts = [chunk.choices[0].text for chunk in chunks]
    assert "".join(texts) == "one tw! "
    assert "tw!" in texts
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_stop_string_may_belong_to_the_text(client: Any, served: Any) -> None:
    served.engine.script.text = "one two three"
    answer = client.completions.create(
        model="m", prompt="x", stop="two", extra_body={"include_stop_str_in_output": True}
    )

    assert answer.choices[0].text == "one two"


def test_stop_strings_count_behind_min_tokens(client: Any, served: Any) -> None:
    served.engine.script.text = "a.b.c.d"
    answer = client.completions.create(
        model="m", prompt="x", stop=["."], extra_body={"min_tokens": 3}
    )
    assert answer.choices[0].text == "a.b"
    answer = client.completions.create(
        model="m", prompt="x", stop=["."], extra_body={"min_tokens": 4}
    )
    assert answer.choices[0].text == "a.b.c"


def test_token_ids_in_answers(client: Any, served: Any) -> None:
    served.engine.script.text = "ab"
    ids = served.engine._tokenizer.encode("ab", add_special_tokens=False)
    asked = {"return_token_ids": True, "return_tokens_as_token_ids": True}
    plain = client.completions.create(model="m", prompt=[1, 2], logprobs=1, extra_body=asked)
    choice = plain.choices[0]
    assert (choice.prompt_token_ids, choice.token_ids) == ([1, 2], [*ids, 256])
    assert choice.logprobs.tokens == [f"token_id:{token}" for token in ids]
    assert list(choice.logprobs.top_logprobs[0]) == [f"token_id:{ids[0]}"]
    assert choice.logprobs.text_offset == [0, 1]
    parts = [
        part.choices[0]
        for part in client.completions.create(
            model="m", prompt=[1, 2], stream=True, extra_body=asked
        )
    ]
    assert [token for part in parts for token in part.token_ids] == [*ids, 256]
    assert [getattr(part, "prompt_token_ids", None) for part in parts] == [[1, 2], None, None]
    chat = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "x"}],
        logprobs=True,
        top_logprobs=1,
        extra_body=asked,
    )
    prompt = list(served.engine.submitted[-1].prompt)
    assert chat.prompt_token_ids == prompt
    assert chat.choices[0].token_ids == [*ids, 256]
    entry = chat.choices[0].logprobs.content[0]
    assert (entry.token, entry.top_logprobs[0].token) == (f"token_id:{ids[0]}",) * 2
    parts = list(
        client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "x"}],
            stream=True,
            extra_body=asked,
        )
    )
    assert parts[0].prompt_token_ids == prompt
    found = [getattr(part.choices[0], "token_ids", []) for part in parts]
    assert [token for one in found for token in one] == [*ids, 256]


def test_models_tell_the_context_length(client: Any) -> None:
    [model] = client.models.list()

    assert (model.id, model.object, model.max_model_len) == ("zoo-model", "model", 64)


def test_extra_fields_reach_the_engine(client: Any, served: Any) -> None:
    client.completions.create(
        model="m",
        prompt="x",
        max_tokens=9,
        presence_penalty=0.5,
        frequency_penalty=-0.25,
        logit_bias={"65": -100, "3": 2.5},
        extra_body={
            "top_k": 7,
            "min_p": 0.125,
            "repetition_penalty": 1.25,
            "min_tokens": 2,
            "ignore_eos": True,
            "stop_token_ids": [9],
        },
    )

    [seen] = served.engine.submitted
    assert (seen.params.presence_penalty, seen.params.frequency_penalty) == (0.5, -0.25)
    assert (seen.params.min_p, seen.params.repetition_penalty) == (0.125, 1.25)
    assert seen.params.logit_bias == ((65, -100.0), (3, 2.5))
    assert seen.params.grammar is None
    assert (seen.params.top_k, seen.params.min_tokens) == (7, 2)
    assert seen.params.ignore_eos
    assert seen.params.stop_token_ids == frozenset({9})


def test_embeddings_in_both_encodings(of: Any) -> None:
    with client_of(of("embedding")) as client:
        floats = client.embeddings.create(
            model="m", input=["ab", "c", "defg"], encoding_format="float"
        )
        # The client's own default is base64, which it unpacks.
        packed = client.embeddings.create(model="m", input="abc")
        tokens = client.embeddings.create(model="m", input=[[1, 2], [3]], encoding_format="float")
        one = client.embeddings.create(model="m", input=[1, 2, 3], dimensions=3)
        cut = client.embeddings.create(model="m", input=[1, 2, 3], dimensions=2)

    assert [item.embedding for item in floats.data] == [
        [2.0, 0.25, -1.5],
        [1.0, 0.25, -1.5],
        [4.0, 0.25, -1.5],
    ]
    assert [item.index for item in floats.data] == [0, 1, 2]
    assert floats.usage.prompt_tokens == floats.usage.total_tokens == 7
    assert list(packed.data[0].embedding) == [3.0, 0.25, -1.5]
    assert [item.embedding[0] for item in tokens.data] == [2.0, 1.0]
    assert len(one.data) == 1
    length = math.hypot(3, 0.25)
    assert list(cut.data[0].embedding) == pytest.approx([3 / length, 0.25 / length])


def test_errors_are_the_clients_own_classes(client: Any, served: Any, queue_full: Any) -> None:
    with pytest.raises(openai.BadRequestError) as too_long:
        client.completions.create(model="m", prompt="x" * 61)
    assert "61 tokens" in str(too_long.value)
    assert "at most 60" in str(too_long.value)
    assert too_long.value.code == "context_length_exceeded"

    served.engine.script.refuse = queue_full
    with pytest.raises(openai.RateLimitError) as full:
        client.completions.create(model="m", prompt="x")
    assert full.value.response.headers["retry-after"] == "3"


def test_an_engine_error_in_mid_stream_reaches_the_client(client: Any, served: Any) -> None:
    served.engine.script.error = "out of luck"
    stream = client.chat.completions.create(model="m", messages=HELLO, stream=True)
    texts: list[str] = []

    with pytest.raises(openai.APIError, match="out of luck"):
        texts.extend(chunk.choices[0].delta.content for chunk in stream)

    assert "".join(texts) == "Hello there"


def test_an_engine_error_before_the_first_token_has_a_status(client: Any, served: Any) -> None:
    served.engine.script.text = ""
    served.engine.script.error = "out of luck"

    for stream in (False, True):
        with pytest.raises(openai.InternalServerError, match="out of luck"):
            client.completions.create(model="m", prompt="x", stream=stream)


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (Failure.ENGINE, 500, "generation_failed"),
        (Failure.GRAMMAR, 400, "grammar_too_complex"),
        (Failure.LOGITS, 500, "logits_not_finite"),
    ],
)
def test_only_a_failed_step_is_worth_another_try(
    client: Any, served: Any, failure: Failure, status: int, code: str
) -> None:
    served.engine.script = replace(served.engine.script, error="Oh dear.", failure=failure)
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(model="m", prompt="x")
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert ("Try again" in caught.value.message) == (failure is Failure.ENGINE)
