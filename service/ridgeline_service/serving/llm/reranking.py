"""How well documents answer a query: by a cross-encoder, or by an embedding model's vectors.

A cross-encoder reads query and document together and is the better judge. An embedding model
compares the two by the cosine of their vectors; answers say which of the two it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from operator import mul

from ridgeline_backends.encoding import TokenPair
from ridgeline_service.serving.llm.embedding import unit
from ridgeline_service.serving.llm.errors import DAMAGED, BadRequest, GenerationFailed
from ridgeline_service.serving.llm.model import EmbeddingModel, Keep, Model, RerankModel
from ridgeline_service.serving.llm.watch import watching


@dataclass(frozen=True, slots=True)
class Relevance:
    """One score a pair, higher for better. ``method`` says how they were made."""

    scores: list[float]
    tokens: int
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Pairs of texts. ``params`` are the request's names for the two, for complaints. With
    ``truncate`` a document that is too long is cut."""

    pairs: Sequence[tuple[str, str]]
    params: tuple[str, str]
    truncate: bool = False


def pair_tokens(pair: TokenPair) -> int:
    return len(pair.token_ids)


async def relevance(model: Model, texts: Texts) -> Relevance:
    """Score the pairs. Raises BadRequest, ContextLengthExceeded, Overloaded."""
    if isinstance(model, RerankModel):
        return await _judged(model, texts)
    if isinstance(model, EmbeddingModel):
        return await _compared(model, texts)
    raise BadRequest(
        f"{model.name} generates text and scores no documents.",
        hint="Deploy a cross-encoder or an embedding model for it.",
        code="wrong_task",
    )


async def _judged(model: RerankModel, texts: Texts) -> Relevance:
    pairs = await model.encode_pairs(texts.pairs, texts.params[1], truncate=texts.truncate)
    tokens = sum(len(pair.token_ids) for pair in pairs)
    scores = await model.judge.each(pairs)
    if not all(map(isfinite, scores)):
        raise GenerationFailed("A score is not a finite number.", hint=DAMAGED)
    watching().embedded_tokens += tokens
    return Relevance(scores, tokens, "cross-encoder")


async def _compared(model: EmbeddingModel, texts: Texts) -> Relevance:
    # A query that is compared with many documents is read once.
    kinds = zip(*texts.pairs, strict=True)
    distinct = [list(dict.fromkeys(kind)) for kind in kinds]
    keeps = None, Keep() if texts.truncate else None
    encoded = [
        await model.encode_all(own, add_special_tokens=True, param=param, keep=keep)
        for own, param, keep in zip(distinct, texts.params, keeps, strict=True)
    ]
    vectors = await model.embedder.embed([*encoded[0], *encoded[1]])
    units = [unit(vector) for vector in vectors]
    queries = dict(zip(distinct[0], units, strict=False))
    documents = dict(zip(distinct[1], units[len(queries) :], strict=True))
    scores = [sum(map(mul, queries[query], documents[document])) for query, document in texts.pairs]
    tokens = sum(map(len, encoded[0])) + sum(map(len, encoded[1]))
    return Relevance(scores, tokens, "cosine similarity of embeddings")
