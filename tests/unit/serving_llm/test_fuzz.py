"""No body, however odd, is answered with a fault of the server."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ridgeline_service.serving.llm.openai.chat import ChatBody
from ridgeline_service.serving.llm.openai.completions import CompletionBody
from ridgeline_service.serving.llm.openai.embeddings import EmbeddingBody
from ridgeline_service.serving.llm.parameters import InputsBody, Parameters

LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-2, 4)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(0, 1)
    | st.text(max_size=6)
)
VALUE = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "name"]) | st.text(max_size=4),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
MESSAGES = st.just([{"role": "user", "content": "Hi"}]) | VALUE
TEXT = st.just("x") | VALUE


def bodies(names: Iterable[str], **required: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    optional = st.dictionaries(st.sampled_from(sorted(names)), VALUE, max_size=4)
    return st.builds(
        lambda extra, needed: {**extra, **needed}, optional, st.fixed_dictionaries(required)
    )


def names(body: type[Any]) -> set[str]:
    return {*body.model_fields, *body.neutral, *body.harmless}


PARAMETERS = st.dictionaries(st.sampled_from(sorted(names(Parameters))), VALUE, max_size=3)
ROUTES = {
    "/v1/chat/completions": bodies(names(ChatBody), messages=MESSAGES),
    "/v1/completions": bodies(names(CompletionBody), prompt=TEXT),
    "/v1/embeddings": bodies(names(EmbeddingBody), input=TEXT),
    "/invocations": bodies(names(InputsBody), inputs=TEXT, parameters=PARAMETERS | VALUE),
}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("kind", ["text", "embedding"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_odd_bodies_are_the_clients_fault(of: Any, kind: str, path: str, data: Any) -> None:
    body = data.draw(ROUTES[path])
    reply = of(kind).post(path, json.loads(json.dumps(body)))

    # Whoever names an adapter may name one that is not there.
    allowed = {200, 400, 404} if "adapter" in json.dumps(body) else {200, 400}
    assert reply.status in allowed, (body, reply.body)
    if reply.status == 400:
        assert reply.json["error"]
