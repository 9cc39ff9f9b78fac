"""Answers from your own notes: embed, rerank, and stream an answer with its sources.

Run it beside ``ridgeline up``, in a shell that evaluated ``ridgeline env``. It deploys two small
models from the zoo and deletes them at the end.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from openai import OpenAI
from rich.console import Console

from ridgeline import ZooModel

WRITER = "smollm2-135m-instruct"
READER = "all-minilm-l6-v2"

NOTES = [
    "The hut opens on 12 June and closes on 3 October.",
    "The last bus from the valley leaves at 18:40, on Sundays at 17:10.",
    "A bed costs 28 euros, and 19 euros for members of the alpine club.",
    "Dogs may stay in the winter room, but not in the dormitories.",
    "Drinking water comes from the spring behind the hut; it runs dry in August.",
    "The path over the ridge takes four hours and is closed when there is snow.",
    "Breakfast is served from six to eight, dinner at half past six.",
    "There is no mobile signal at the hut; the emergency telephone is beside the door.",
]
QUESTION = "When does the last bus leave on Sundays?"
console = Console(highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    client = OpenAI()
    with ExitStack() as stack:
        reader = deploy(READER, stack)
        writer = deploy(WRITER, stack)
        found = nearest(client, reader, QUESTION, NOTES, count=5)
        sources = reranked(client, reader, QUESTION, found, count=2)
        console.print(f"\n{QUESTION}")
        answer(client, writer, QUESTION, sources)
        console.print("Sources:")
        for number, source in enumerate(sources, 1):
            console.print(f"[{number}] {source}")


def deploy(model: str, stack: ExitStack) -> str:
    """An endpoint of a model of the zoo, until the stack is closed; its name."""
    predictor = ZooModel(model).deploy()
    stack.callback(predictor.delete_endpoint)
    return predictor.endpoint_name


def nearest(
    client: OpenAI, model: str, question: str, texts: list[str], *, count: int
) -> list[str]:
    """The texts whose vectors point the same way as the question's. They have unit length, so the
    sum of products is the cosine; with many texts a vector index belongs here."""
    made = client.embeddings.create(model=model, input=[question, *texts])
    asked, *vectors = [entry.embedding for entry in made.data]
    scores = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in vectors]
    order = sorted(range(len(texts)), key=lambda place: -scores[place])
    return [texts[place] for place in order[:count]]


def reranked(
    client: OpenAI, model: str, question: str, texts: list[str], *, count: int
) -> list[str]:
    """The best of the texts by ``POST /v1/rerank``, for which the openai client has no method.

    An embedding model ranks by the same cosine again, and ``scored_by`` says so. A cross-encoder,
    which reads question and text together, would have a judgement of its own.
    """
    body = {"model": model, "query": question, "documents": texts, "top_n": count}
    ranking: Any = client.post("/rerank", body=body, cast_to=object)
    console.print(f"\nRanked by {ranking['scored_by']}:")
    for result in ranking["results"]:
        console.print(f"  {result['relevance_score']:.2f}  {result['document']['text']}")
    return [result["document"]["text"] for result in ranking["results"]]


def answer(client: OpenAI, model: str, question: str, sources: list[str]) -> None:
    """Print the answer as it comes. A model of 135M parameters may misread its sources: so they
    are few, the best one comes first, and they are shown with the answer."""
    notes = "\n".join(f"[{number}] {source}" for number, source in enumerate(sources, 1))
    stream = client.chat.completions.create(
        model=model,
        messages=[
            {
                "role": "system",
                "content": "Answer the question in one sentence, from the notes alone.",
            },
            {"role": "user", "content": f"Notes:\n{notes}\n\nQuestion: {question}"},
        ],
        temperature=0,
        max_tokens=60,
        stream=True,
    )
    for chunk in stream:
        console.print(chunk.choices[0].delta.content or "", end="")
    console.print("\n")


if __name__ == "__main__":
    main()
