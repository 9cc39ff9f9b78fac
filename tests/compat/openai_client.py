"""The openai client, unmodified: chat, completions and embeddings, streamed too.

The endpoints ``compat-chat`` and ``compat-embed`` are there already: OpenAI's API deploys nothing.
"""

from __future__ import annotations

import json

from openai import OpenAI


def main() -> None:
    client = OpenAI()
    assert {"compat-chat", "compat-embed"} <= {model.id for model in client.models.list()}
    question = [{"role": "user", "content": "What is the capital of France?"}]
    chat = {"model": "compat-chat", "messages": question, "temperature": 0, "max_tokens": 24}
    whole = client.chat.completions.create(**chat).choices[0].message.content
    assert "Paris" in whole
    chunks = client.chat.completions.create(**chat, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    tool = {
        "type": "function",
        "function": {"name": "pick", "parameters": {"properties": {"n": {"enum": [1, 2]}}}},
    }
    called = client.chat.completions.create(**chat, tools=[tool], tool_choice="required")
    assert called.choices[0].message.tool_calls[0].function.name == "pick"
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}}
    schema |= {"required": ["n"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    formed = client.chat.completions.create(**chat, response_format=form).choices[0]
    assert list(json.loads(formed.message.content)) == ["n"]
    scored = client.chat.completions.create(**chat, logprobs=True, top_logprobs=2).choices[0]
    assert len(scored.logprobs.content[0].top_logprobs) == 2
    text = client.completions.create(
        model="compat-chat", prompt="The capital of France is", max_tokens=8, temperature=0
    )
    assert "Paris" in text.choices[0].text
    vectors = client.embeddings.create(model="compat-embed", input=["a cat", "a kitten"]).data
    assert [len(vector.embedding) for vector in vectors] == [384, 384]
    print("openai: models, chat, stream, tools, schema, logprobs, completions, embeddings")


if __name__ == "__main__":
    main()
