"""``POST /invocations``: the one route of SageMaker's contract, speaking several schemas.

The body decides: ``messages`` is an OpenAI chat, ``prompt`` an OpenAI completion, ``input`` OpenAI
embeddings, ``query`` a rerank (Cohere's form, or with ``texts`` that of text-embeddings-inference),
and ``inputs`` the schema of LMI (DJL Serving) and TGI. For an embedding model, ``inputs`` answers
as text-embeddings-inference does: a list with one vector for each text.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar

from annotated_types import Len

from ridgeline_service.serving.llm.answers import Answer, StreamAnswer, json_answer
from ridgeline_service.serving.llm.embedding import unit
from ridgeline_service.serving.llm.errors import BadRequest, ErrorStyle
from ridgeline_service.serving.llm.fields import Body
from ridgeline_service.serving.llm.inputs import generate
from ridgeline_service.serving.llm.model import EmbeddingModel, Keep, Model, TextModel
from ridgeline_service.serving.llm.openai.chat import chat_completions
from ridgeline_service.serving.llm.openai.completions import completions
from ridgeline_service.serving.llm.openai.embeddings import MAX_INPUTS, embeddings
from ridgeline_service.serving.llm.openai.rerank import rerank, tei_rerank


class Flavour(StrEnum):
    """The family of image that the endpoint was created with."""

    DJL = "djl"
    TGI = "tgi"
    VLLM = "vllm"


class EmbedBody(Body):
    inputs: str | Annotated[list[str], Len(min_length=1, max_length=MAX_INPUTS)]
    truncate: bool | None = None
    normalize: bool | None = None

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "prompt_name": (),
        "dimensions": (),
        "truncation_direction": ("Right", "right"),
    }
    harmless: ClassVar[frozenset[str]] = frozenset({"parameters", "options", "model"})


def error_style(body: Mapping[str, object], flavour: Flavour) -> ErrorStyle:
    """How the client that sent this body reads errors."""
    if "inputs" not in body or flavour is Flavour.VLLM:
        return ErrorStyle.OPENAI
    return ErrorStyle.TGI if flavour is Flavour.TGI else ErrorStyle.DJL


async def invoke(
    model: Model, body: Mapping[str, object], flavour: Flavour
) -> Answer | StreamAnswer:
    """Answer one invocation. Raises BadRequest and the engine's refusals."""
    if "inputs" in body:
        if isinstance(model, EmbeddingModel):
            return await _embed(model, body)
        return await generate(text_model(model), body, tgi=flavour is Flavour.TGI)
    if "messages" in body:
        return await chat_completions(text_model(model), body)
    if "prompt" in body:
        return await completions(text_model(model), body)
    if "query" in body:
        return await (tei_rerank if "texts" in body else rerank)(model, body)
    if "input" in body:
        return await embeddings(embedding_model(model), body)
    raise BadRequest(
        "The body has none of the fields this endpoint answers to.",
        hint='Send {"inputs": ...}, {"messages": [...]}, {"prompt": ...} or, to an embedding '
        'model, {"input": ...}; to score texts, {"query": ..., "documents": [...]}.',
    )


def text_model(model: Model) -> TextModel:
    """Raises BadRequest for any other."""
    if isinstance(model, TextModel):
        return model
    embeds = isinstance(model, EmbeddingModel)
    raise BadRequest(
        f"{model.name} {'is an embedding model' if embeds else 'scores texts'} "
        "and generates no text.",
        hint="Use /v1/embeddings." if embeds else "Use /v1/rerank or /v1/score.",
        code="wrong_task",
    )


def embedding_model(model: Model) -> EmbeddingModel:
    """Raises BadRequest for any other."""
    if isinstance(model, EmbeddingModel):
        return model
    generates = isinstance(model, TextModel)
    raise BadRequest(
        f"{model.name} {'generates text' if generates else 'scores texts'} "
        "and makes no embeddings.",
        hint="Use /v1/chat/completions or /v1/completions."
        if generates
        else "Use /v1/rerank or /v1/score.",
        code="wrong_task",
    )


async def _embed(model: EmbeddingModel, body: Mapping[str, object]) -> Answer:
    request = EmbedBody.read(body)
    if request.normalize is False:
        raise BadRequest("Vectors always have unit length in this schema.", param="normalize")
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    sequences = await model.encode_all(
        texts,
        add_special_tokens=True,
        param="inputs",
        keep=Keep() if request.truncate else None,
    )
    vectors = await model.embedder.embed(sequences)
    return json_answer([unit(vector) for vector in vectors])
