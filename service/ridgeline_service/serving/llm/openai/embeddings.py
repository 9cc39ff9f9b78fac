"""``/v1/embeddings``."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from annotated_types import Len

from ridgeline_service.serving.llm.answers import Answer, json_answer
from ridgeline_service.serving.llm.embedding import unit
from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.fields import Body, texts_or_tokens
from ridgeline_service.serving.llm.model import EmbeddingModel, Keep
from ridgeline_service.serving.llm.openai.sampling import TruncateTo
from ridgeline_service.serving.llm.simulated import encoded_usage

MAX_INPUTS = 2048

Texts = Annotated[list[str], Len(min_length=1, max_length=MAX_INPUTS)]
Tokens = Annotated[list[list[int]], Len(min_length=1, max_length=MAX_INPUTS)]


class EmbeddingBody(Body):
    input: str | Texts | list[int] | Tokens
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None

    truncate_prompt_tokens: TruncateTo | None = None

    harmless: ClassVar[frozenset[str]] = frozenset({"user", "priority", "request_id"})


async def embeddings(model: EmbeddingModel, body: Mapping[str, object]) -> Answer:
    """Answer one request. Raises BadRequest, ContextLengthExceeded, Overloaded."""
    request = EmbeddingBody.read(body)
    _check_dimensions(request.dimensions, model.embedder.dimensions)
    texts, sequences = texts_or_tokens(request.input)
    asked = request.truncate_prompt_tokens
    keep = None if asked is None else Keep(None if asked < 0 else asked)
    if texts:
        sequences = await model.encode_all(texts, add_special_tokens=True, param="input", keep=keep)
    else:
        sequences = [model.known_ids(ids, "input", keep) for ids in sequences]
    made = await model.embedder.embed(sequences)
    vectors = [_cut(vector, request.dimensions) for vector in made]
    packed = request.encoding_format == "base64"
    tokens = sum(len(ids) for ids in sequences)
    return json_answer(
        {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _packed(vector) if packed else vector,
                }
                for index, vector in enumerate(vectors)
            ],
            "model": request.model or model.name,
            "usage": encoded_usage(tokens),
        }
    )


def _check_dimensions(wanted: int | None, had: int) -> None:
    if wanted is not None and not 1 <= wanted <= had:
        raise BadRequest(
            f"dimensions: this model's vectors have {had} numbers, so {wanted} cannot be given.",
            param="dimensions",
            hint=f"Allowed: 1 to {had}.",
            code="invalid_value",
        )


def _cut(vector: Sequence[float], dimensions: int | None) -> Sequence[float]:
    """The first numbers of a vector, as a unit vector again. Good for models that were trained
    for it (Matryoshka); for others less is left of the meaning."""
    if dimensions is None or dimensions == len(vector):
        return vector
    return unit(vector[:dimensions])


def _packed(vector: Sequence[float]) -> str:
    """Little-endian float32, as OpenAI's clients unpack it."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
