"""The official openai client against a running service."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import jsonschema
import openai
import pytest
from openai import OpenAI
from ridgeline_testing import Service

pytestmark = pytest.mark.e2e
CHAT = "openai-chat"
EMBED = "openai-embed"
SIMULATED = "openai-embed-simulated"


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[OpenAI]:
    service.deploy(CHAT, "smollm2-135m-instruct")
    service.deploy(EMBED, "all-minilm-l6-v2")
    yield OpenAI(
        base_url=service.variables["OPENAI_BASE_URL"], api_key=service.api_key, max_retries=0
    )
    service.delete(CHAT)
    service.delete(EMBED)


def test_models(client: OpenAI) -> None:
    assert {CHAT, EMBED} <= {model.id for model in client.models.list()}


def test_chat_knows_paris(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_tokens=24,
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream_equals_the_whole(client: OpenAI) -> None:
    request = {
        "model": CHAT,
        "messages": [{"role": "user", "content": "Count from one to five."}],
        "temperature": 0,
        "max_tokens": 32,
    }
    whole = client.chat.completions.create(**request)
    chunks = list(client.chat.completions.create(**request, stream=True))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert len(chunks) > 5
    assert text == whole.choices[0].message.content
    assert [c for c in chunks if c.choices][-1].choices[0].finish_reason


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def ask(words: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": words}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_a_call_that_must_be_made_is_valid(client: OpenAI, choice: object, stream: bool) -> None:
    request = {
        "model": CHAT,
        "messages": ask("How warm is it in Rome?"),
        "tools": [WEATHER],
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "max_completion_tokens": 200,
        "temperature": 0,
    }
    if stream:
        with client.chat.completions.stream(**request) as events:
            answer = events.get_final_completion()
    else:
        answer = client.chat.completions.create(**request)
    [choice_made] = answer.choices
    assert choice_made.finish_reason == "tool_calls"
    [call] = choice_made.message.tool_calls
    assert call.function.name == "weather"
    jsonschema.validate(json.loads(call.function.arguments), WEATHER["function"]["parameters"])


def test_a_tools_result_comes_back_into_the_conversation(client: OpenAI) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Rome", "unit": "celsius"}'},
    }
    answer = client.chat.completions.create(
        model=CHAT,
        messages=[
            *ask("How warm is it in Rome?"),
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "31 degrees"},
        ],
        tools=[WEATHER],
        max_tokens=40,
        temperature=0,
    )
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls


def test_an_answer_has_the_form_of_its_schema(client: OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    for temperature in (0, 1.5):
        answer = client.chat.completions.create(
            model=CHAT,
            messages=ask("Invent a person."),
            response_format=form,
            temperature=temperature,
            max_tokens=200,
            seed=3,
        )
        assert answer.choices[0].finish_reason == "stop"
        jsonschema.validate(json.loads(answer.choices[0].message.content or ""), PERSON)


def test_forms_of_vllm_and_an_object(client: OpenAI) -> None:
    request = {"model": CHAT, "messages": ask("Is the sky blue?"), "max_tokens": 64}
    for extra, allowed in (
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"structured_outputs": {"regex": "[A-Z]{3}-[0-9]{2}"}}, "[A-Z]{3}-[0-9]{2}"),
    ):
        answer = client.chat.completions.create(**request, extra_body=extra)
        assert re.fullmatch(allowed, answer.choices[0].message.content or "")
    answer = client.chat.completions.create(
        **request, response_format={"type": "json_object"}, temperature=0
    )
    assert (answer.choices[0].message.content or "").startswith("{")


def test_a_schema_that_cannot_be_followed_is_a_bad_request(client: OpenAI) -> None:
    form = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "array", "uniqueItems": True}},
    }
    with pytest.raises(openai.BadRequestError, match="uniqueItems"):
        client.chat.completions.create(model=CHAT, messages=ask("x"), response_format=form)


def test_log_probabilities_of_answer_and_prompt(client: OpenAI) -> None:
    chat = client.chat.completions.create(
        model=CHAT,
        messages=ask("Hi"),
        logprobs=True,
        top_logprobs=3,
        temperature=0,
        max_tokens=5,
    )
    assert chat.choices[0].logprobs is not None
    for entry in chat.choices[0].logprobs.content or []:
        assert entry.top_logprobs[0].token == entry.token
        assert entry.logprob == entry.top_logprobs[0].logprob <= 0
    request = {"model": CHAT, "logprobs": 0, "echo": True, "max_tokens": 0}
    sense = client.completions.create(**request, prompt="The capital of France is Paris")
    nonsense = client.completions.create(**request, prompt="The capital of France is Fish")
    scores = [made.choices[0].logprobs.token_logprobs for made in (sense, nonsense)]
    assert scores[0][0] is scores[1][0] is None
    assert scores[0][1:-1] == scores[1][1:-1], "what comes before is scored the same"
    assert scores[0][-1] > scores[1][-1]


def test_penalties_and_bias_change_what_is_said(client: OpenAI) -> None:
    request = {"model": CHAT, "prompt": "one two one two one two", "temperature": 0}
    request |= {"max_tokens": 48}
    plain = client.completions.create(**request).choices[0].text
    varied = client.completions.create(**request, frequency_penalty=2).choices[0].text
    assert len(set(varied.split())) > len(set(plain.split()))
    spelled = client.post(
        "/tokenize",
        cast_to=dict,
        body={"model": CHAT, "prompt": plain, "return_token_strs": True},
    )
    assert "".join(spelled["token_strs"]) == plain
    first = spelled["tokens"][0]
    other = client.completions.create(**request, logit_bias={str(first): -100}).choices[0].text
    assert not other.startswith(spelled["token_strs"][0])


def test_tokens_and_text_are_each_others(client: OpenAI) -> None:
    text = "Tokens: naïve, 東京!"
    made = client.post("/tokenize", cast_to=dict, body={"model": CHAT, "prompt": text})
    assert made["count"] == len(made["tokens"]) < made["max_model_len"]
    back = client.post("/detokenize", cast_to=dict, body={"model": CHAT, "tokens": made["tokens"]})
    assert back["prompt"] == text


def test_cached_tokens_are_told_in_a_stream_too(client: OpenAI) -> None:
    request = {"model": CHAT, "prompt": "one two three four " * 20, "max_tokens": 2}
    client.completions.create(**request)
    *_, last = client.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    )
    assert last.usage.prompt_tokens_details.cached_tokens >= 32


def test_completion_stops_at_a_string(client: OpenAI) -> None:
    answer = client.completions.create(
        model=CHAT, prompt="1, 2, 3, 4,", temperature=0, max_tokens=40, stop=[" 8"]
    )
    assert "7" in answer.choices[0].text
    assert "8" not in answer.choices[0].text
    assert answer.choices[0].finish_reason == "stop"


def test_embeddings_know_what_is_alike(client: OpenAI) -> None:
    answer = client.embeddings.create(
        model=EMBED, input=["A cat sits.", "A kitten is sitting.", "Stock prices fell sharply."]
    )
    cat, kitten, stocks = (item.embedding for item in answer.data)
    assert len(cat) == 384
    assert dot(cat, kitten) > dot(cat, stocks) + 0.2


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_errors_are_the_clients_own(client: OpenAI, service: Service) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=CHAT, messages=[], max_tokens=-1)
    stranger = OpenAI(base_url=service.variables["OPENAI_BASE_URL"], api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_nothing_answers_without_a_key(service: Service) -> None:
    for path in ("/metrics", "/v1/models", "/api/info", "/", "/endpoints/x/invocations", "/bucket"):
        assert httpx.get(service.url + path).status_code in (401, 403), path
    assert httpx.get(service.url + "/healthz").status_code == 200


def test_a_simulated_endpoint_embeds_as_the_processor_does(
    client: OpenAI, service: Service, tmp_path: Path
) -> None:
    """In bf16 on two cores, whose rounding moves a vector of length 1 by a fiftieth at most."""
    texts = ["A man is eating food.", "Somebody has a meal.", "The sea is deep and wide. " * 30]
    here = client.embeddings.create(model=EMBED, input=texts, encoding_format="float")
    service.deploy(SIMULATED, "all-minilm-l6-v2", instance_type="ml.inf2.xlarge")
    try:
        there = client.embeddings.create(model=SIMULATED, input=texts, encoding_format="float")
        for own, other in zip(here.data, there.data, strict=True):
            assert 0 < math.dist(own.embedding, other.embedding) < 0.02
        told = (there.usage.model_extra or {})["ridgeline"]
        assert (told["instance_type"], told["neuron_cores"]) == ("inf2.xlarge", 2)
        invoked = service.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=SIMULATED,
            Body=json.dumps({"inputs": texts}),
            ContentType="application/json",
        )
        header = invoked["ResponseMetadata"]["HTTPHeaders"]["x-ridgeline-simulated"]
        assert json.loads(header) == told
        shown = service.cli("describe", SIMULATED).stdout
        assert "a call, texts of up to (batch 16):" in shown
        assert re.search(r"so far, \S+: \d+ texts of \d+ tokens in 0\.\d+ s", shown)
        said = service.cli("neuron", "profile", SIMULATED, "-o", str(tmp_path / "call.json")).stderr
        assert "(encoding, bucket 256, batch 1) on 2 cores" in said
    finally:
        service.delete(SIMULATED)
