"""The usage that a stream of OpenAI's routes tells on its way, as vLLM's clients ask for it."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/completions", {"prompt": "Hi", "max_tokens": 20}),
    ],
)
def test_a_stream_may_tell_its_usage_throughout(served: Any, path: str, asked: Any) -> None:
    def stream(**options: bool) -> list[Any]:
        body = {**asked, "n": 2, "stream": True, "stream_options": options}
        *chunks, done = served.post(path, body).events
        assert done == "[DONE]"
        return chunks

    told = [chunk["usage"] for chunk in stream(include_usage=True, continuous_usage_stats=True)]
    last = stream(include_usage=True)[-1]["usage"]
    counts = [usage["completion_tokens"] for usage in told]
    assert told[-1] == last
    assert counts == sorted(counts)
    assert counts[0] < counts[len(counts) // 2] < counts[-1]
    assert {usage["prompt_tokens"] for usage in told} == {last["prompt_tokens"]}
    assert all(
        usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        for usage in told
    )
    # By itself it only says how: `include_usage` says whether.
    assert not any("usage" in chunk for chunk in stream(continuous_usage_stats=True))


def test_a_prompt_scored_alone_has_made_no_tokens_throughout(served: Any) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"prompt": "ab", "max_tokens": 0, "echo": True, "logprobs": 1}
    *chunks, _ = served.post(
        "/v1/completions", {**body, "stream": True, "stream_options": options}
    ).events
    assert {chunk["usage"]["completion_tokens"] for chunk in chunks} == {0}
