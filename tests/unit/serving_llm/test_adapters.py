"""LoRA adapters by vLLM's routes, priorities and time limits, through the official client."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from ridgeline_service.serving.llm.generation import Terms

HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def client(served: Any) -> Any:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{served.port}/v1",
        api_key="unused",
        default_headers={"X-Ridgeline-Token": "replica-secret"},
        max_retries=0,
    ) as made:
        yield made


def load(client: Any, name: str) -> Any:
    body = {"lora_name": name, "lora_path": f"/adapters/{name}"}
    return client.post("/load_lora_adapter", body=body, cast_to=object)


def unload(client: Any, name: str) -> Any:
    return client.post("/unload_lora_adapter", body={"lora_name": name}, cast_to=object)


def test_an_adapter_is_a_model_while_it_is_loaded(client: Any, served: Any) -> None:
    load(client, "poet")
    models = {entry.id: entry for entry in client.models.list()}
    [own] = [entry for entry in models.values() if entry.id != "poet"]
    assert models["poet"].parent == own.id
    assert models["poet"].root == "/adapters/poet"
    answer = client.chat.completions.create(model="poet", messages=HELLO)
    assert answer.model == "poet"
    client.completions.create(model="poet", prompt="Hi")
    client.completions.create(model="my-endpoint", prompt="Hi")
    assert [s.terms.adapter for s in served.engine.submitted] == ["poet", "poet", None]
    unload(client, "poet")
    assert "poet" not in {entry.id for entry in client.models.list()}
    # Not answered by the model itself: that is not what was asked for.
    with pytest.raises(openai.NotFoundError, match="poet"):
        client.chat.completions.create(model="poet", messages=HELLO)


def test_adapters_that_cannot_come_or_go(client: Any) -> None:
    load(client, "twice")
    with pytest.raises(openai.ConflictError, match="twice"):
        load(client, "twice")
    unload(client, "twice")
    with pytest.raises(openai.NotFoundError, match="twice"):
        unload(client, "twice")
    [own] = client.models.list()
    with pytest.raises(openai.BadRequestError, match="own name"):
        load(client, own.id)
    with pytest.raises(openai.BadRequestError, match="lora_path"):
        client.post("/load_lora_adapter", body={"lora_name": "x"}, cast_to=object)


def test_priority_and_timeout_reach_the_engine(client: Any, served: Any) -> None:
    extra = {"priority": -3, "timeout": 2.5}
    client.chat.completions.create(model="m", messages=HELLO, extra_body=extra)
    client.completions.create(model="m", prompt="Hi")
    first, second = (submitted.terms for submitted in served.engine.submitted)
    assert first == Terms(priority=-3, timeout_s=2.5)
    assert second == Terms()
    with pytest.raises(openai.BadRequestError, match="timeout"):
        client.completions.create(model="m", prompt="Hi", extra_body={"timeout": 0})


def test_an_openai_body_may_name_the_adapter_beside_the_model(client: Any, served: Any) -> None:
    load(client, "poet")
    extra = {"adapter": "poet"}
    answer = client.chat.completions.create(model="e:poet", messages=HELLO, extra_body=extra)
    assert answer.model == "e:poet"
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.completions.create(model="poet", prompt="Hi", extra_body={"adapter": "nobody"})
    assert [s.terms.adapter for s in served.engine.submitted] == ["poet"]


def test_bodies_of_lmi_and_tgi_name_adapters_too(client: Any, served: Any) -> None:
    load(client, "poet")
    load(client, "cook")

    def invoke(**body: object) -> tuple[int, list[Terms]]:
        before = len(served.engine.submitted)
        reply = served.post("/invocations", body)
        return reply.status, [one.terms for one in served.engine.submitted[before:]]

    poet = Terms(adapter="poet")
    assert invoke(inputs="x", adapters="poet") == (200, [poet])
    assert invoke(inputs="x", adapters=["poet"]) == (200, [poet])
    assert invoke(inputs=["x", "y"], adapters="poet") == (200, [poet, poet])
    each = ["poet", "", "cook"]
    assert invoke(inputs=["x", "y", "z"], adapters=each) == (
        200,
        [poet, Terms(), Terms(adapter="cook")],
    )
    assert invoke(inputs="x", parameters={"adapter_id": "poet"}) == (200, [poet])
    assert invoke(inputs="x", parameters={"adapter_id": ""}) == (200, [Terms()])
    hurried = {"priority": -1, "timeout": 1.5}
    assert invoke(inputs="x", parameters=hurried) == (200, [Terms(priority=-1, timeout_s=1.5)])

    assert invoke(inputs="x", adapters="nobody") == (404, [])
    assert invoke(inputs=["x", "y"], adapters=["poet"]) == (400, [])
    assert invoke(inputs="x", adapters="poet", parameters={"adapter_id": "poet"}) == (400, [])
    assert invoke(inputs="x", parameters={"timeout": 0}) == (400, [])
