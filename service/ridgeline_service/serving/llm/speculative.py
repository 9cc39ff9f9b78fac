"""Speculative decoding as vLLM's users write it: a JSON object of settings.

    {"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 4}
    {"model": "/opt/ml/model/draft", "num_speculative_tokens": 3}

Without any, tokens are looked up in what was said before wherever that pays. Reads no file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ridgeline_service.serving.llm.errors import InvalidSetting

MAX_GUESSES = 16

OFF = ("none", "off", "false", "null", "{}")

_Guesses = Annotated[int, Ge(1), Le(MAX_GUESSES)]
_Length = Annotated[int, Ge(1), Le(16)]


class SpeculativeSettings(BaseModel):
    """How tokens are guessed. `model` is the directory of a smaller model of the same vocabulary;
    without one they are looked up."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    method: str | None = None
    model: str | None = None
    num_speculative_tokens: _Guesses = 8
    prompt_lookup_max: _Length = 4
    prompt_lookup_min: _Length = 2
    draft_tensor_parallel_size: int | None = None

    @model_validator(mode="after")
    def _consistent(self) -> SpeculativeSettings:
        drafted = self.model not in (None, "ngram", "[ngram]")
        if self.method not in (None, "ngram", "draft_model"):
            raise ValueError(f"method {self.method!r} is not ngram or draft_model")
        if (self.method == "draft_model") > drafted:
            raise ValueError("method draft_model needs a model")
        if self.method == "ngram" and drafted:
            raise ValueError("method ngram takes no model")
        return self

    @property
    def draft_directory(self) -> Path | None:
        return None if self.model in (None, "ngram", "[ngram]") else Path(str(self.model))

    @property
    def shortest(self) -> int:
        return min(self.prompt_lookup_min, self.prompt_lookup_max)


def read_speculative(source: str, text: str) -> SpeculativeSettings | None:
    """None: guess nothing. Raises InvalidSetting, which names `source`."""
    if text.lower() in OFF:
        return None
    try:
        return SpeculativeSettings.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSetting(
            f"{source}={text} is not valid: {where or 'it'}: {first['msg']}.",
            hint='Allowed: none, or an object such as {"method": "ngram", '
            '"num_speculative_tokens": 5, "prompt_lookup_max": 4}.',
        ) from None
