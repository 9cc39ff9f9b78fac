"""``/v1/rerank`` (as Jina, Cohere and vLLM have it), ``/v1/score`` (vLLM) and, for invocations, the
schema of text-embeddings-inference.

Answers have ``scored_by`` besides: a cross-encoder's judgement is another thing than the cosine of
two vectors, and scores of the two cannot be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from annotated_types import Ge, Len

from ridgeline_service.serving.llm.answers import Answer, json_answer
from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.fields import Body
from ridgeline_service.serving.llm.model import Model
from ridgeline_service.serving.llm.reranking import Relevance, Texts, relevance
from ridgeline_service.serving.llm.simulated import encoded_usage

MAX_DOCUMENTS = 1000

Documents = Annotated[list[str], Len(min_length=1, max_length=MAX_DOCUMENTS)]


class TextDocument(Body):
    text: str


class RerankBody(Body):
    query: str
    documents: Annotated[list[str | TextDocument], Len(min_length=1, max_length=MAX_DOCUMENTS)]
    model: str | None = None
    top_n: Annotated[int, Ge(1)] | None = None
    return_documents: bool | None = None
    truncate: bool | None = None

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "max_chunks_per_doc": (),
        "max_tokens_per_doc": (),
        "rank_fields": ((), ["text"]),
        "truncate_prompt_tokens": (),
    }
    harmless: ClassVar[frozenset[str]] = frozenset({"user", "priority", "request_id"})


class ScoreBody(Body):
    text_1: str | Documents
    text_2: str | Documents
    model: str | None = None
    truncate: bool | None = None

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {"truncate_prompt_tokens": ()}
    harmless: ClassVar[frozenset[str]] = RerankBody.harmless


class TeiRerankBody(Body):
    """text-embeddings-inference's ``/rerank``."""

    query: str
    texts: Documents
    return_text: bool | None = None
    truncate: bool | None = None

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "raw_scores": (False,),
        "truncation_direction": ("Right", "right"),
    }
    harmless: ClassVar[frozenset[str]] = frozenset({"model"})


async def rerank(model: Model, body: Mapping[str, object]) -> Answer:
    """Documents, best first. Raises BadRequest, ContextLengthExceeded, Overloaded."""
    request = RerankBody.read(body)
    documents = [one if isinstance(one, str) else one.text for one in request.documents]
    found = await _against(model, request.query, documents, "documents", request.truncate)
    shown = request.return_documents is not False
    results = [
        {
            "index": index,
            "relevance_score": found.scores[index],
            **({"document": {"text": documents[index]}} if shown else {}),
        }
        for index in _best_first(found.scores)[: request.top_n]
    ]
    return json_answer(
        {
            "id": f"rerank-{model.seams.new_id()}",
            "model": request.model or model.name,
            "scored_by": found.method,
            "usage": encoded_usage(found.tokens),
            "results": results,
        }
    )


async def score(model: Model, body: Mapping[str, object]) -> Answer:
    """Pairs in their order: one text with each of several, or two lists side by side."""
    request = ScoreBody.read(body)
    first = [request.text_1] if isinstance(request.text_1, str) else request.text_1
    second = [request.text_2] if isinstance(request.text_2, str) else request.text_2
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        raise BadRequest(
            f"text_1 has {len(first)} texts and text_2 has {len(second)}.",
            param="text_1",
            hint="Send one text as text_1, or as many as in text_2.",
            code="invalid_value",
        )
    pairs = list(zip(first, second, strict=True))
    texts = Texts(pairs=pairs, params=("text_1", "text_2"), truncate=bool(request.truncate))
    found = await relevance(model, texts)
    return json_answer(
        {
            "id": f"score-{model.seams.new_id()}",
            "object": "list",
            "created": int(model.seams.now()),
            "model": request.model or model.name,
            "scored_by": found.method,
            "data": [
                {"index": index, "object": "score", "score": value}
                for index, value in enumerate(found.scores)
            ],
            "usage": encoded_usage(found.tokens),
        }
    )


async def tei_rerank(model: Model, body: Mapping[str, object]) -> Answer:
    """A bare list, best first."""
    request = TeiRerankBody.read(body)
    found = await _against(model, request.query, request.texts, "texts", request.truncate)
    return json_answer(
        [
            {
                "index": index,
                "score": found.scores[index],
                **({"text": request.texts[index]} if request.return_text else {}),
            }
            for index in _best_first(found.scores)
        ]
    )


async def _against(
    model: Model, query: str, documents: Sequence[str], param: str, truncate: bool | None
) -> Relevance:
    pairs = [(query, document) for document in documents]
    texts = Texts(pairs=pairs, params=("query", param), truncate=bool(truncate))
    return await relevance(model, texts)


def _best_first(scores: Sequence[float]) -> list[int]:
    """Of equal scores the earlier document goes first."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])
