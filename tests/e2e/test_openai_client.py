"""The official openai client against a running service."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2 as httpx
import openai
import pytest
from openai import OpenAI
from ridgeline_testing import Service

pytestmark = pytest.mark.e2e
CHAT = "openai-chat"
EMBED = "openai-embed"


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
